// Shipments, the newest first.
import { html, useState } from "../lib/html.js";
import { get } from "../lib/api.js";
import { items, t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { href, query } from "../lib/router.js";
import { now } from "../lib/time.js";
import { Ago, Card, Cli, Empty, Found, Head, OrderLink, shortId, Status, When } from "../components/parts.js";
import { isCalled } from "../components/waiting.js";

const PAGE = 50;
const ROWS_MAX = 1000;
const LATE_MILLISECONDS = 2000;

export function Shipments() {
  const orderId = query.value.get("orderId");
  const [size, setSize] = useState(PAGE);
  const state = usePolled((abort) => shipments(orderId, size, abort), { key: `${orderId} ${size}` });
  return html`<${Head} title=${t("page.shipments")} lead=${t("shipments.lead")}>${orderId && html`<a class="button" href=${href("shipments")}>${t("filter.clear")}</a>`}<//>
    <div class="stack">
      <${Card}><${Found} state=${state}>${({ found, more }) => html`${found.length ? html`<${Table} shipments=${found} />` : html`<${Empty} icon="shipments" title=${t("shipments.none")} />`}
        ${more && html`<div class="body row"><button type="button" class="button" disabled=${size >= ROWS_MAX} onClick=${() => setSize(size + PAGE)}>${t("more")}</button><span class="quiet small">${t("rows.shown", { n: found.length })}</span></div>`}`}<//><//>
      <${Cli} command="todoku shipment list" />
    </div>`;
}

async function shipments(orderId, size, abort) {
  const found = [];
  let cursor = null;
  do {
    const wanted = new URLSearchParams({ limit: PAGE });
    if (orderId) wanted.set("orderId", orderId);
    if (cursor) wanted.set("cursor", cursor);
    const page = await get("shipping", `/shipments?${wanted}`, abort);
    found.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor && found.length < size);
  return { found, more: cursor !== null };
}

const Table = ({ shipments: shown }) => html`<div class="scroll"><table class="wide-only-cells">
  <thead><tr><th scope="col">${t("order.shipment")}</th><th scope="col">${t("order")}</th><th scope="col">${t("order.status")}</th><th scope="col" class="hide-small">${t("order.items")}</th><th scope="col" class="num">${t("letter.attempts")}</th><th scope="col" class="hide-small">${t("shipments.detail")}</th><th scope="col">${t("shipments.updated")}</th></tr></thead>
  <tbody>${shown.map((each) => html`<tr key=${each.id} data-row><td class="id" title=${each.id}>${shortId(each.id)}</td><td><${OrderLink} id=${each.orderId} /></td><td><${Status} value=${each.status} /></td><td class="hide-small break small quiet">${items(each.items)}</td><td class="num">${each.attempts}</td>
    <td class="hide-small break small">${each.trackingNumber ? html`<span class="mono">${each.trackingNumber}</span>` : (each.lastError ?? each.reason ?? "")}${isCalled(each) ? html`<span class="quiet">${t("shipments.called")}</span>` : each.nextAttemptAt && html` <span class="quiet">${t(Date.parse(each.nextAttemptAt) < now.value - LATE_MILLISECONDS ? "shipments.due" : "shipments.next")} <${When} at=${each.nextAttemptAt} /></span>`}</td><td><${Ago} at=${each.updatedAt} /></td></tr>`)}</tbody>
</table></div>`;
