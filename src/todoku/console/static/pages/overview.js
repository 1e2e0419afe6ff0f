// How the system is: figures, what needs a person, the services, the newest orders.
import { html } from "../lib/html.js";
import { number, percent, t } from "../lib/i18n.js";
import { largest, quantile, value } from "../lib/metrics.js";
import { href } from "../lib/router.js";
import { history, snapshot } from "../lib/snapshot.js";
import { duration } from "../lib/time.js";
import { Attention } from "../components/attention.js";
import { Card, Head, Loading } from "../components/parts.js";
import { PlaceOrder } from "../components/place-order.js";
import { RecentOrders } from "../components/recent-orders.js";
import { ServiceCards } from "../components/service-cards.js";
import { Sparkline } from "../components/sparkline.js";

const MINUTE = 60_000;

export function Overview() {
  const known = Object.keys(snapshot.value.services).length > 0;
  return html`<${Head} title=${t("page.overview")} lead=${t("overview.lead")}><${PlaceOrder} /><//>
    <div class="stack">
      ${known ? html`<${Figures} />` : html`<${Card}><${Loading} /><//>`}
      <div class="columns">
        <div class="stack"><${Attention} known=${known} /><${RecentOrders} /></div>
        <${ServiceCards} />
      </div>
    </div>`;
}

/** Return the figures of the last samples: `ended` counts since the page was opened, or since orders started. */
export function figures(samples) {
  const last = samples.at(-1);
  const minuteAgo = samples.findLast((each) => each.at <= last.at - MINUTE) ?? samples[0];
  const minutes = (last.at - minuteAgo.at) / MINUTE;
  const fresh = last.ended > samples[0].ended && last.ended - samples[0].ended >= 20;
  const from = fresh ? samples[0] : { ended: 0, completed: 0, compensated: 0, durations: [] };
  const ended = last.ended - from.ended;
  return {
    perMinute: minutes > 0 ? Math.max(0, last.accepted - minuteAgo.accepted) / minutes : null,
    success: ended ? (last.completed - from.completed) / ended : null,
    compensated: ended ? (last.compensated - from.compensated) / ended : null,
    half: quantile(last.durations, 0.5, from.durations),
    most: quantile(last.durations, 0.95, from.durations),
    fresh,
  };
}

/** Return how much a counter grew between neighbouring samples, a minute. */
export function rates(samples, name) {
  return samples.slice(1).map((each, index) => {
    const grown = each[name] - samples[index][name];
    return each[name] === null || grown < 0 ? null : (grown / (each.at - samples[index].at)) * MINUTE;
  });
}

function Figures() {
  const samples = history.value.filter((each) => each.accepted !== null);
  if (!samples.length) return null;
  const found = figures(samples);
  const last = samples.at(-1);
  const since = t(found.fresh ? "overview.sinceOpened" : "overview.sinceStart");
  const orders = snapshot.value.services.orders?.metrics;
  const oldest = largest(orders, "todoku_orders_oldest_open_seconds");
  const series = (name) => history.value.map((each) => each[name]);
  return html`<div class="tiles">
    <${Tile} name=${t("figure.perMinute")} value=${found.perMinute === null ? "–" : number(found.perMinute, { maximumFractionDigits: 1 })} note=${t("figure.perMinute.note")} values=${rates(history.value, "accepted")} link="orders" />
    <${Tile} name=${t("figure.success")} value=${found.success === null ? "–" : percent(found.success)} note=${since} link="orders?preset=completed" />
    <${Tile} name=${t("figure.compensated")} value=${found.compensated === null ? "–" : percent(found.compensated)} note=${since} link="orders?preset=cancelled" />
    <${Tile} name=${t("figure.half")} value=${duration(found.half)} note=${`${t("figure.most", { value: duration(found.most) })}`} />
    <${Tile} name=${t("figure.open")} value=${number(last.open)} note=${last.open ? t("figure.oldest", { value: duration(oldest) }) : t("figure.open.none")} values=${series("open")} link="orders?preset=flight" />
    <${Tile} name=${t("figure.letters")} value=${number(last.letters)} note=${t(last.letters ? "figure.letters.some" : "figure.letters.none")} values=${series("letters")} link="dead-letters" level=${last.letters ? "bad" : ""} />
    <${Tile} name=${t("figure.outbox")} value=${duration(last.outboxSeconds)} note=${t("figure.outbox.note")} values=${series("outboxSeconds")} link="subscribers" level=${last.outboxSeconds > 30 ? "warn" : ""} />
    <${Tile} name=${t("figure.held")} value=${number(value(orders, "todoku_orders_held") ?? 0)} note=${t("figure.held.note")} link="orders?preset=held" />
  </div>`;
}

function Tile({ name, value: shown, note, values, link, level }) {
  const body = html`<span class="name">${name}</span><span class=${`value ${level ?? ""}`}>${shown}</span><span class="note">${note}</span>${values && html`<${Sparkline} values=${values} label=${t("figure.hour", { name })} />`}`;
  return link === undefined ? html`<div class="card tile">${body}</div>` : html`<a class="card tile" href=${href(link)}>${body}</a>`;
}
