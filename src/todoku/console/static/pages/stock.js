// Products: on hand, reserved, available.
import { html, useState } from "../lib/html.js";
import { get } from "../lib/api.js";
import { money, number, t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { href, query, setQuery } from "../lib/router.js";
import { askForCount, askToRestock } from "../components/stock-actions.js";
import { Action, Card, Cli, Empty, Found, Head } from "../components/parts.js";

const PAGE = 100;
const ROWS_MAX = 1000;

export const isLow = (product) => product.lowStockThreshold !== null && product.availableQuantity <= product.lowStockThreshold;

export function Stock() {
  const [size, setSize] = useState(PAGE);
  const state = usePolled((abort) => products(size, abort), { key: String(size) });
  const text = (query.value.get("text") ?? "").toLowerCase();
  return html`<${Head} title=${t("page.stock")} lead=${t("stock.lead")} />
    <div class="stack">
      <div class="filters"><input value=${query.value.get("text") ?? ""} placeholder=${t("stock.find")} aria-label=${t("stock.find")} onInput=${(event) => setQuery({ text: event.target.value })} /></div>
      <${Card}><${Found} state=${state}>${({ items, more }) => {
        const shown = items.filter((each) => !text || each.id.toLowerCase().includes(text) || each.name.toLowerCase().includes(text));
        return html`${shown.length ? html`<${Table} products=${shown} reload=${state.reload} />` : html`<${Empty} icon="stock" title=${t("stock.none")} />`}
          ${more && html`<div class="body row"><button type="button" class="button" disabled=${size >= ROWS_MAX} onClick=${() => setSize(size + PAGE)}>${t("more")}</button><span class="quiet small">${t("rows.shown", { n: items.length })}</span></div>`}`;
      }}<//><//>
      <${Cli} command="todoku product list" />
    </div>`;
}

async function products(size, abort) {
  const items = [];
  let cursor = null;
  do {
    const page = await get("inventory", `/products?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, abort);
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor && items.length < size);
  return { items, more: cursor !== null };
}

function Table({ products: shown, reload }) {
  return html`<div class="scroll"><table class="wide-only-cells">
    <thead><tr><th scope="col">${t("product")}</th><th scope="col" class="hide-small">${t("product.name")}</th><th scope="col" class="num hide-small">${t("price")}</th><th scope="col" class="num">${t("stock.onHand")}</th><th scope="col" class="num">${t("stock.reserved")}</th><th scope="col" class="num">${t("stock.available")}</th><th scope="col"><span class="visually-hidden">${t("actions")}</span></th></tr></thead>
    <tbody>${shown.map((product) => html`<tr key=${product.id} data-row>
      <td><a href=${href(`stock/${encodeURIComponent(product.id)}`)}>${product.id}</a>${product.archived && html` <span class="badge">${t("stock.archived")}</span>`}</td>
      <td class="hide-small break">${product.name}</td><td class="num hide-small nowrap">${money(product.price, product.currency)}</td>
      <td class="num">${number(product.stockQuantity)}</td><td class="num">${number(product.reservedQuantity)}</td>
      <td class="num"><strong class=${product.availableQuantity === 0 ? "bad" : isLow(product) ? "warn" : ""}>${number(product.availableQuantity)}</strong>${product.availableQuantity === 0 && !product.archived ? html` <span class="badge bad">${t("stock.out")}</span>` : isLow(product) && html` <span class="badge warn">${t("stock.low")}</span>`}</td>
      <td><span class="row" style=${{ justifyContent: "flex-end", flexWrap: "nowrap" }}><${Action} label=${t("restock.button")} icon="plus" onClick=${() => askToRestock(product, reload)} /><span class="hide-small"><${Action} label=${t("count.button")} onClick=${() => askForCount(product, reload)} /></span></span></td>
    </tr>`)}</tbody>
  </table></div>`;
}
