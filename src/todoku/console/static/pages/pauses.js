// What does not go on because a person said so: paused services, held orders.
import { html } from "../lib/html.js";
import { about, get } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { href } from "../lib/router.js";
import { askToPause, askToResume } from "../components/pause-actions.js";
import { OrderTable } from "../components/order-rows.js";
import { Action, Card, Cli, Empty, Found, Head, Service, Status, When } from "../components/parts.js";
import { ofAll, Unreachable } from "./dead-letters.js";

const ENDED_SHOWN = 20;

export function Pauses() {
  const state = usePolled((abort) => ofAll(about.value.services, (service) => get(service, "/pauses?limit=100", abort)), { key: about.value.services.join() });
  const held = usePolled((abort) => get("orders", "/orders?held=true&limit=50", abort));
  return html`<${Head} title=${t("page.pauses")} lead=${t("pauses.lead")}><${Action} label=${t("pause.button")} icon="pauses" onClick=${() => askToPause(null, null, state.reload)} /><//>
    <div class="stack">
      <${Found} state=${state}>${({ found, failed }) => {
        const all = found.flatMap(([service, { items }]) => items.map((pause) => ({ service, ...pause })));
        const open = all.filter((pause) => pause.state !== "RESUMED");
        const ended = all.filter((pause) => pause.state === "RESUMED").slice(0, ENDED_SHOWN);
        return html`<${Card} title=${t("pauses.open")} aside=${html`<span class=${`count ${open.length ? "warn" : ""}`}>${open.length}</span>`}><${Unreachable} failed=${failed} />
          ${open.length ? html`<${Table} pauses=${open} reload=${state.reload} />` : !failed.length && html`<${Empty} icon="play" title=${t("pauses.none")}>${t("pauses.none.hint")}<//>`}<//>
          ${ended.length > 0 && html`<details class="card"><summary>${t("pauses.ended")}</summary><${Table} pauses=${ended} /></details>`}`;
      }}<//>
      <${Card} title=${t("holds.orders")} aside=${html`<a href=${href("orders?preset=held")}>${t("overview.all")}</a>`}><${Found} state=${held}>${(page) => (page.items.length ? html`<${OrderTable} orders=${page.items} />` : html`<${Empty} icon="orders" title=${t("holds.none")}>${t("holds.none.hint")}<//>`)}<//><//>
      <${Cli} command="todoku pauses" />
    </div>`;
}

const Table = ({ pauses, reload }) => html`<div class="scroll"><table>
  <thead><tr><th scope="col">${t("pauses.what")}</th><th scope="col">${t("order.status")}</th><th scope="col">${t("field.reason")}</th><th scope="col">${t("pauses.by")}</th><th scope="col">${t("stock.since")}</th>${reload && html`<th scope="col"><span class="visually-hidden">${t("actions")}</span></th>`}</tr></thead>
  <tbody>${pauses.map((pause) => html`<tr key=${pause.id} data-row><td><${Service} name=${pause.service} /> ${pause.target === "service" ? "" : pause.target}</td><td><${Status} value=${pause.state} /></td><td class="break">${pause.reason}</td><td>${pause.pausedBy}${pause.resumedBy && html` → ${pause.resumedBy}`}</td><td><${When} at=${pause.pausedAt} /></td>${reload && html`<td>${pause.state === "PAUSED" && html`<${Action} label=${t("resume.button")} icon="play" onClick=${() => askToResume(pause, reload)} />`}</td>`}</tr>`)}</tbody>
</table></div>`;
