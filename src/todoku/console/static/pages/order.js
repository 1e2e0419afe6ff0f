// One order: what it waits for, its timeline, its story, its items, its holds, its events.
import { html, useEffect, useRef } from "../lib/html.js";
import { get } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { money, t } from "../lib/i18n.js";
import { listen } from "../lib/live.js";
import { usePolled } from "../lib/poll.js";
import { href } from "../lib/router.js";
import { EventTable } from "../components/event-table.js";
import { Holds } from "../components/holds.js";
import { Icon } from "../components/icons.js";
import { OrderActions } from "../components/order-actions.js";
import { Card, Cli, Copy, Found, Head, Status, When } from "../components/parts.js";
import { Story } from "../components/story.js";
import { Timeline } from "../components/timeline.js";
import { Waiting } from "../components/waiting.js";

const SETTLE_MILLISECONDS = 120;
const OPEN_SECONDS = 10;
const ENDED = ["COMPLETED", "CANCELLED", "CANCELLED_NO_STOCK", "SHIPMENT_FAILED"];

export const hasEnded = (order) => ENDED.includes(order.status);

export function Order({ id }) {
  const state = usePolled(
    async (abort) => {
      const [order, history] = await Promise.all([get("orders", `/orders/${id}`, abort), get("orders", `/orders/${id}/events`, abort)]);
      return { order, events: history.items };
    },
    { seconds: OPEN_SECONDS, key: id },
  );
  const timer = useRef(null);
  useEffect(() => {
    const end = listen((events) => {
      if (!events.some((event) => event.orderId === id)) return;
      clearTimeout(timer.current);
      timer.current = setTimeout(state.reload, SETTLE_MILLISECONDS);
    });
    return () => {
      end();
      clearTimeout(timer.current);
    };
  }, [id]);
  return html`<${Found} state=${state}>${({ order, events }) => html`<${Shown} order=${order} events=${events} reload=${state.reload} />`}<//>`;
}

function Shown({ order, events, reload }) {
  const ended = hasEnded(order);
  return html`<${Head} title=${html`${t("order")} <span class="mono" style=${{ fontSize: "16px" }} title=${order.id}>${order.id.slice(0, 8)}…${order.id.slice(-8)}</span> <${Copy} text=${order.id} />`}
      lead=${html`<span class="row"><${Status} value=${order.status} /><span class="break">${order.userId}</span><strong>${money(order.totalAmount, order.currency)}</strong><${When} at=${order.createdAt} /></span>`}>
      <${OrderActions} order=${order} reload=${reload} />
    <//>
    <div class="stack">
      ${order.waitingFor && html`<${Waiting} order=${order} />`}
      ${ended && order.reason && html`<div class="notice info"><${Icon} name="info" /><div class="grow break">${order.reason}</div></div>`}
      <${Card} title=${t("timeline")}><${Timeline} events=${events} open=${!ended} /><//>
      <div class="columns even">
        <${Card} title=${t("story")}><${Story} events=${events} /><//>
        <div class="stack">
          <${Facts} order=${order} />
          <${Lines} order=${order} />
          <${Holds} order=${order} reload=${reload} />
        </div>
      </div>
      <${Card} title=${t("events")} aside=${html`<span class="count">${events.length}</span>`}><${EventTable} events=${events} orderId=${order.id} /><//>
      <${Cli} command=${command(["order", "show", order.id])} />
    </div>`;
}

function Facts({ order }) {
  return html`<${Card} title=${t("order.facts")}><div class="body"><dl class="facts">
    <dt>${t("order.customer")}</dt><dd><a href=${href(`orders?userId=${encodeURIComponent(order.userId)}`)}>${order.userId}</a></dd>
    <dt>${t("order.address")}</dt><dd>${order.shippingAddress || "–"}</dd>
    <dt>${t("order.shipment")}</dt><dd>${order.shipmentId ? html`<a class="id" href=${href(`shipments?orderId=${order.id}`)}>…${order.shipmentId.slice(-8)}</a>` : "–"}</dd>
    <dt>${t("order.tracking")}</dt><dd class="mono">${order.trackingNumber ?? "–"}</dd>
    <dt>${t("order.deadline")}</dt><dd><${When} at=${order.deadline} /></dd>
    <dt>${t("order.onShortage")}</dt><dd>${t(`place.shortage.${order.onShortage}`)}</dd>
    ${order.cancellation && html`<dt>${t("order.cancellation")}</dt><dd><${Status} value=${order.cancellation.state} /> ${order.cancellation.reason ?? ""} ${order.cancellation.by ? `(${order.cancellation.by})` : ""}</dd>`}
  </dl></div><//>`;
}

function Lines({ order }) {
  const prices = new Map(order.items.map((item) => [item.productId, item.price]));
  return html`<${Card} title=${t("order.items")}><div class="scroll"><table>
    <thead><tr><th scope="col">${t("product")}</th><th scope="col" class="num">${t("line.ordered")}</th><th scope="col" class="num">${t("line.reserved")}</th><th scope="col" class="num">${t("line.shipped")}</th><th scope="col" class="num">${t("line.cancelled")}</th></tr></thead>
    <tbody>${order.lines.map((line) => html`<tr key=${line.productId}><td><a href=${href(`stock/${encodeURIComponent(line.productId)}`)}>${line.productId}</a><div class="quiet small">${money(prices.get(line.productId), order.currency)}</div></td><td class="num">${line.ordered}</td><td class="num">${line.reserved}</td><td class="num">${line.shipped}</td><td class="num">${line.cancelled}</td></tr>`)}</tbody>
  </table></div><//>`;
}
