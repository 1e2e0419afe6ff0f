// What an order waits for, since when, and what can be done.
import { html } from "../lib/html.js";
import { command } from "../lib/cli.js";
import { has, t } from "../lib/i18n.js";
import { href } from "../lib/router.js";
import { get } from "../lib/api.js";
import { value } from "../lib/metrics.js";
import { usePolled } from "../lib/poll.js";
import { missing, problems, snapshot } from "../lib/snapshot.js";
import { callLimit, dateTime, duration, secondsSince } from "../lib/time.js";
import { since as toldSince, title } from "./attention.js";
import { Icon } from "./icons.js";
import { Cli } from "./parts.js";

/** The services whose work an order waits for; of all else, every service. */
const CONCERNED = { stock: ["inventory"], restock: ["inventory"], carrier: ["shipping"], release: ["shipping"] };
const BROKEN = ["attention.down", "attention.database", "attention.full", "attention.broker", "attention.recovering"];
const NEEDS_PERSON = ["manualAction", "release", "restock"];

export function Waiting({ order }) {
  const { what, since, pauses, attempts, lastError, nextAttemptAt, service, letterId } = order.waitingFor;
  const key = has(`waits.${what}`) ? `waits.${what}` : "waits.other";
  const level = what === "manualAction" ? "bad" : NEEDS_PERSON.includes(what) || pauses.length || attempts ? "warn" : "info";
  const holders = order.holds.filter((hold) => hold.state === "requested" || hold.state === "confirmed").map((hold) => hold.holder);
  const broken = problems.value.filter((problem) => BROKEN.includes(problem.key) && (CONCERNED[what] ?? [problem.values.service]).includes(problem.values.service));
  return html`<section class=${`notice ${broken.length ? "bad" : level}`} aria-label=${t("waits")}>
    <${Icon} name=${level === "info" && !broken.length ? "clock" : "warn"} size=${18} />
    <div class="grow stack" style=${{ gap: "6px" }}>
      <div><strong>${t(key, { what, service: service ?? "", holders: holders.join(", ") })}</strong> <span class="quiet">${t("waits.since", { duration: duration(secondsSince(since)) })}</span></div>
      ${broken.map((problem) => html`<div key=${problem.key + problem.values.service}><a href=${href(problem.link)}><strong>${title(problem)}</strong></a> <span class="quiet">${toldSince(problem)}</span></div>`)}
      ${what === "carrier" && !attempts && !pauses.length && html`<${Call} order=${order} />`}
      ${what === "restock" && html`<div>${t("waits.restock.how")} ${missing(order).map((product) => html`<a key=${product} href=${href(`stock/${encodeURIComponent(product)}`)}>${product}</a> `)}</div>`}
      ${attempts && html`<div>${t("waits.attempts", { n: attempts, error: lastError })} ${nextAttemptAt && t("waits.next", { time: dateTime(nextAttemptAt) })}</div>`}
      ${pauses.map((pause) => html`<div key=${pause.id}>${t("waits.pause", { service: pause.service, target: pause.target, by: pause.by, reason: pause.reason })} <a href=${href("pauses")}>${t("page.pauses")}</a></div>`)}
      ${letterId && html`<div>${order.parked.map((letter) => html`<div key=${letter.letterId}>${letter.eventType}: ${letter.error} – <a href=${href(`dead-letters?service=${letter.service}&letter=${letter.letterId}`)}>${t("letter.open")}</a></div>`)}</div>`}
      <${Cli} command=${command(["order", "why", order.id])} />
    </div>
  </section>`;
}

/** Since when the carrier is being called, and how long calls take now. */
function Call({ order }) {
  const { data } = usePolled((abort) => get("shipping", `/shipments?orderId=${order.id}&limit=1`, abort), { key: order.id });
  const shipment = data?.items[0];
  if (!shipment || !isCalled(shipment)) return null;
  const { callSeconds, services } = snapshot.value;
  const limit = callLimit(value(services.shipping?.metrics, "todoku_carrier_call_limit_seconds"));
  return html`<div>${t("waits.called", { duration: duration(secondsSince(shipment.updatedAt)) })} ${callSeconds ? t("waits.callsTake", { duration: duration(callSeconds) }) : ""} ${t("waits.givenUp", { limit })}</div>`;
}

/** Return whether the carrier is being called for the first time: else its last error is told. */
export const isCalled = (shipment) => shipment.status === "BOOKING" && !shipment.lastError;
