// What happens now: the last events, filtered, paused, downloaded.
import { html, useLayoutEffect, useMemo, useRef, useState } from "../lib/html.js";
import { number, t } from "../lib/i18n.js";
import { connection, countsByType, events, isPaused, KEPT_MAX, openedAt, received, resume } from "../lib/live.js";
import { language, zone } from "../lib/prefs.js";
import { query, setQuery } from "../lib/router.js";
import { clock, now } from "../lib/time.js";
import { Action, Card, Cli, Empty, Head, OrderLink, Service, Status } from "../components/parts.js";
import { VirtualList } from "../components/virtual.js";

const ROW_PIXELS = 34;

/** Return the events that match what is in the address. */
export function matching(all, parameters) {
  const type = parameters.get("type");
  const source = parameters.get("source");
  const text = (parameters.get("text") ?? "").toLowerCase();
  return all.filter((event) => (!type || event.type === type) && (!source || event.source === source) && (!text || event.orderId.includes(text) || JSON.stringify(event.data).toLowerCase().includes(text)));
}

export function Events() {
  const [frozen, setFrozen] = useState(null);
  const parameters = query.value;
  const shown = frozen?.events ?? events.value;
  const rows = useMemo(() => matching(shown, parameters), [shown, parameters]);
  const missed = frozen ? received.value - frozen.received : 0;
  const types = [...countsByType.value].sort((a, b) => b[1] - a[1]);
  const minutes = (now.value - openedAt.value) / 60_000;
  return html`<${Head} title=${t("page.events")} lead=${t("events.lead", { n: received.value, rate: number(received.value / Math.max(minutes, 0.05), { maximumFractionDigits: 0 }) })}>
      ${frozen
        ? html`<${Action} label=${t("events.resume", { n: missed })} icon="play" primary onClick=${() => setFrozen(null)} />`
        : html`<${Action} label=${t("events.pause")} icon="pauses" onClick=${() => setFrozen({ events: events.value, received: received.value })} />`}
      <${Action} label=${t("events.download")} icon="down" why=${rows.length ? "" : t("events.none")} onClick=${() => download(rows)} />
    <//>
    <div class="stack">
      <div class="filters">
        <select aria-label=${t("event.type")} onChange=${(event) => setQuery({ type: event.target.value })}><option value="">${t("events.allTypes")}</option>${types.map(([type, count]) => html`<option key=${type} value=${type} selected=${parameters.get("type") === type}>${type} (${number(count)})</option>`)}</select>
        <select aria-label=${t("service")} onChange=${(event) => setQuery({ source: event.target.value })}><option value="">${t("events.allServices")}</option>${["orders", "inventory", "shipping"].map((name) => html`<option key=${name} value=${name} selected=${parameters.get("source") === name}>${name}</option>`)}</select>
        <input value=${parameters.get("text") ?? ""} placeholder=${t("events.text")} aria-label=${t("events.text")} onInput=${(event) => setQuery({ text: event.target.value })} />
        <span class="quiet small">${t("events.shown", { n: rows.length, max: KEPT_MAX })}</span>
      </div>
      <${Card}>${rows.length
        ? html`<${VirtualList} rows=${rows} height=${ROW_PIXELS} label=${t("page.events")}>${(event, top, slot) => html`<${Entry} key=${slot} event=${event} top=${top} />`}<//>`
        : html`<${Empty} icon="live" title=${t(connection.value === "live" ? "events.waiting" : `connection.${connection.value}`)}>${t("events.waiting.hint")}${isPaused() && html`<button type="button" class="button" onClick=${resume}>${t("connection.resume")}</button>`}<//>`}<//>
      <${Cli} command="todoku events tail" />
    </div>`;
}

/** A row moves with each event that comes, but what is in it stays: only its place is computed anew. */
function Entry({ event, top }) {
  const ref = useRef(null);
  // Its element may have shown another event: whoever had chosen that one must not open this one.
  useLayoutEffect(() => () => ref.current?.contains(document.activeElement) && document.activeElement.blur(), [event.id]);
  const content = useMemo(
    () => html`<time class="mono small quiet" datetime=${event.time}>${clock(event.time)}</time><${Service} name=${event.source} /><span title=${event.type}>${event.type.replace(/Event$/, "")}</span><span><${OrderLink} id=${event.orderId} data-row /></span><span><${Status} value=${event.status} /></span>`,
    [event, language.value, zone.value],
  );
  return html`<div class="entry" ref=${ref} style=${{ top: `${top}px` }}>${content}</div>`;
}

function download(rows) {
  const lines = [...rows].reverse().map((event) => JSON.stringify(event)).join("\n");
  const url = URL.createObjectURL(new Blob([`${lines}\n`], { type: "application/x-ndjson" }));
  const link = Object.assign(document.createElement("a"), { href: url, download: "todoku-events.ndjson" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

