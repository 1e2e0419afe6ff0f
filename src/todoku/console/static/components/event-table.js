// The events of an order: payload, cause, and the request that gets them.
import { html } from "../lib/html.js";
import { address } from "../lib/api.js";
import { curl } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { kindOf } from "../lib/story.js";
import { Copy, Json, Service, Status, When } from "./parts.js";

export function EventTable({ events, orderId }) {
  const byId = new Map(events.map((event) => [event.id, event]));
  return html`<div>${events.map((event) => {
    const cause = byId.get(event.cause);
    return html`<details key=${event.id} id=${`event-${event.id}`} class=${`event ${kindOf(event.type)}`} data-row>
      <summary><span class="quiet num">${event.sequence}</span> <${Service} name=${event.source} /> ${event.type} <span class="quiet small"><${When} at=${event.time} /></span></summary>
      <div class="body stack">
        <dl class="facts">
          <dt>${t("event.id")}</dt><dd class="id">${event.id} <${Copy} text=${event.id} /></dd>
          <dt>${t("event.cause")}</dt><dd>${cause ? html`<a href=${`#event-${cause.id}`} onClick=${(click) => jump(click, cause.id)}>${cause.sequence} ${cause.type}</a>` : (event.cause ?? t("event.request"))}</dd>
          <dt>${t("event.actor")}</dt><dd>${event.actor ?? "–"}</dd>
          <dt>${t("event.recorded")}</dt><dd><${When} at=${event.recordedAt} /></dd>
          <dt>${t("order.status")}</dt><dd><${Status} value=${event.status} /></dd>
        </dl>
        <${Json} value=${event.data} />
      </div>
    </details>`;
  })}<div class="body row"><span class="quiet small">${t("event.curl")}</span><${Copy} text=${curl("GET", new URL(address("orders", `/orders/${orderId}/events`), location.origin).href)} /></div></div>`;
}

function jump(click, id) {
  click.preventDefault();
  const row = document.getElementById(`event-${id}`);
  row.open = true;
  row.scrollIntoView({ block: "center" });
  row.querySelector("summary").focus({ preventScroll: true });
}
