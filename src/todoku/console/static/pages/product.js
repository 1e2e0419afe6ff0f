// One product: its stock, which orders hold it, what changed it.
import { html } from "../lib/html.js";
import { get } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { money, number, t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { missing } from "../lib/snapshot.js";
import { askToPause } from "../components/pause-actions.js";
import { Action, Card, Cli, Empty, Found, Head, OrderLink, Status, When } from "../components/parts.js";
import { askForCount, askToChange, askToRestock } from "../components/stock-actions.js";

const ROWS = 50;

export function Product({ id }) {
  const path = `/products/${encodeURIComponent(id)}`;
  const state = usePolled(
    async (abort) => {
      const [product, reservations, ledger, pending] = await Promise.all([
        get("inventory", path, abort),
        get("inventory", `${path}/reservations?limit=${ROWS}`, abort),
        get("inventory", `${path}/ledger?limit=${ROWS}`, abort),
        get("orders", `/orders?status=PENDING&sort=createdAt&limit=${ROWS}&productId=${encodeURIComponent(id)}`, abort).catch(() => ({ items: [] })),
      ]);
      const waiting = pending.items.filter((order) => order.waitingFor?.what === "restock" && missing(order).includes(id));
      return { product, reservations: reservations.items, ledger: ledger.items, waiting };
    },
    { key: id },
  );
  return html`<${Found} state=${state}>${(found) => html`<${Shown} ...${found} reload=${state.reload} />`}<//>`;
}

function Shown({ product, reservations, ledger, waiting, reload }) {
  const held = product.stockQuantity ? product.reservedQuantity / product.stockQuantity : 0;
  return html`<${Head} title=${product.name} lead=${html`<span class="mono">${product.id}</span> · ${money(product.price, product.currency)}${product.archived ? ` · ${t("stock.archived")}` : ""}`}>
      <${Action} label=${t("restock.button")} icon="plus" onClick=${() => askToRestock(product, reload)} />
      <${Action} label=${t("count.button")} onClick=${() => askForCount(product, reload)} />
      <${Action} label=${t("change.button")} onClick=${() => askToChange(product.id, reload)} />
      <${Action} label=${t("pause.product")} icon="pauses" onClick=${() => askToPause("shipping", `product:${product.id}`)} />
    <//>
    <div class="stack">
      <div class="tiles">${[["stock.onHand", product.stockQuantity], ["stock.reserved", product.reservedQuantity], ["stock.available", product.availableQuantity], ["stock.threshold", product.lowStockThreshold]].map(
        ([key, value]) => html`<div class="card tile" key=${key}><span class="name">${t(key)}</span><span class="value">${value === null ? "–" : number(value)}</span>${key === "stock.reserved" && html`<span class="bar" role="img" aria-label=${t("stock.share", { share: number(held, { style: "percent" }) })}><i class="held" style=${{ width: `${held * 100}%` }} /></span>`}</div>`,
      )}</div>
      ${waiting.length > 0 && html`<${Card} title=${t("stock.waiting")} aside=${html`<span class="count warn">${waiting.length === ROWS ? `${ROWS}+` : waiting.length}</span>`}><div class="scroll"><table><thead><tr><th scope="col">${t("order")}</th><th scope="col">${t("order.customer")}</th><th scope="col" class="num">${t("quantity")}</th><th scope="col">${t("stock.since")}</th></tr></thead><tbody>${waiting.map(
        (order) => html`<tr key=${order.id} data-row><td><${OrderLink} id=${order.id} /></td><td class="break">${order.userId}</td><td class="num">${number(order.lines.find((line) => line.productId === product.id).ordered)}</td><td><${When} at=${order.waitingFor.since} /></td></tr>`,
      )}</tbody></table></div><p class="body quiet small">${t("stock.waiting.note")}</p><//>`}
      <${Card} title=${t("stock.reservations")}>${reservations.length ? html`<div class="scroll"><table><thead><tr><th scope="col">${t("order")}</th><th scope="col">${t("order.status")}</th><th scope="col" class="num">${t("quantity")}</th><th scope="col">${t("stock.since")}</th></tr></thead><tbody>${reservations.map(
        (each) => html`<tr key=${each.orderId} data-row><td><${OrderLink} id=${each.orderId} /></td><td><${Status} value=${each.state} /></td><td class="num">${number(each.quantity)}</td><td><${When} at=${each.since} /></td></tr>`,
      )}</tbody></table></div>` : html`<${Empty} icon="stock" title=${t("stock.reservations.none")} />`}<//>
      <${Card} title=${t("stock.ledger")}><div class="scroll"><table><thead><tr><th scope="col">${t("stock.when")}</th><th scope="col">${t("stock.kind")}</th><th scope="col" class="num">${t("quantity")}</th><th scope="col">${t("field.reason")}</th></tr></thead><tbody>${ledger.map(
        (each, index) => html`<tr key=${index}><td><${When} at=${each.at} /></td><td>${t(`ledger.${each.kind}`)}${each.code && each.code !== each.kind ? html` <span class="quiet small">${each.code}</span>` : ""}</td><td class=${`num ${each.quantity < 0 ? "" : "good"}`}>${each.quantity > 0 ? "+" : ""}${number(each.quantity)}</td><td class="break">${each.orderId ? html`<${OrderLink} id=${each.orderId} />` : (each.reason ?? "–")} ${each.by ? html`<span class="quiet">${each.by}</span>` : ""}</td></tr>`,
      )}</tbody></table></div><//>
      <${Cli} command=${command(["product", "show", product.id])} />
    </div>`;
}
