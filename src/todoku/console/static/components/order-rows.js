// Orders as rows of a table.
import { html } from "../lib/html.js";
import { items, money, t } from "../lib/i18n.js";
import { Ago, OrderLink, Status } from "./parts.js";
import { Steps } from "./steps.js";

/** `brief` leaves out what needs much room. */
export function OrderTable({ orders, live, fresh, brief }) {
  return html`<div class="scroll"><table class="wide-only-cells">
    <thead><tr><th scope="col">${t("order.id")}</th><th scope="col">${t("order.status")}</th><th scope="col" class="hide-small">${t("order.progress")}</th><th scope="col" class="hide-small">${t("order.customer")}</th>${!brief && html`<th scope="col" class="hide-small">${t("order.items")}</th>`}<th scope="col" class="num">${t("order.total")}</th><th scope="col">${t("order.created")}</th></tr></thead>
    <tbody>${orders.map((order) => html`<${Row} key=${order.id} order=${order} status=${live?.get(order.id)?.status ?? order.status} last=${live?.get(order.id)?.type} fresh=${fresh?.has(order.id)} brief=${brief} />`)}</tbody>
  </table></div>`;
}

function Row({ order, status, last, fresh, brief }) {
  const waits = order.waitingFor && status === order.status ? order.waitingFor : null;
  return html`<tr data-row data-order=${order.id} class=${fresh ? "fresh" : ""}>
    <td><${OrderLink} id=${order.id} /></td>
    <td><span class="row"><${Status} value=${status} />${order.parked.length > 0 && html`<span class="badge bad">${t("order.parked")}</span>`}${
      waits?.what === "release" && html`<span class="badge warn">${t("order.held")}</span>`
    }${waits?.what === "restock" && html`<span class="badge warn">${t("order.short")}</span>`}${waits?.pauses?.length > 0 && html`<span class="badge warn">${t("order.paused")}</span>`}</span></td>
    <td class="hide-small"><${Steps} status=${status} title=${last ?? ""} /></td>
    <td class="hide-small break">${order.userId}</td>
    ${!brief && html`<td class="hide-small quiet small break">${items(order.items)}</td>`}
    <td class="num nowrap">${money(order.totalAmount, order.currency)}</td>
    <td class="quiet"><${Ago} at=${order.createdAt} /></td>
  </tr>`;
}
