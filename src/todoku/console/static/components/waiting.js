// What an order waits for, since when, and what can be done.
import { html } from "../lib/html.js";
import { command } from "../lib/cli.js";
import { has, t } from "../lib/i18n.js";
import { href } from "../lib/router.js";
import { dateTime, duration, secondsSince } from "../lib/time.js";
import { Icon } from "./icons.js";
import { Cli } from "./parts.js";

const NEEDS_PERSON = ["manualAction", "release", "restock"];

export function Waiting({ order }) {
  const { what, since, pauses, attempts, lastError, nextAttemptAt, service, letterId } = order.waitingFor;
  const key = has(`waits.${what}`) ? `waits.${what}` : "waits.other";
  const level = what === "manualAction" ? "bad" : NEEDS_PERSON.includes(what) || pauses.length || attempts ? "warn" : "info";
  const holders = order.holds.filter((hold) => hold.state === "requested" || hold.state === "confirmed").map((hold) => hold.holder);
  return html`<section class=${`notice ${level}`} aria-label=${t("waits")}>
    <${Icon} name=${level === "info" ? "clock" : "warn"} size=${18} />
    <div class="grow stack" style=${{ gap: "6px" }}>
      <div><strong>${t(key, { what, service: service ?? "", holders: holders.join(", ") })}</strong> <span class="quiet">${t("waits.since", { duration: duration(secondsSince(since)) })}</span></div>
      ${attempts && html`<div>${t("waits.attempts", { n: attempts, error: lastError })} ${nextAttemptAt && t("waits.next", { time: dateTime(nextAttemptAt) })}</div>`}
      ${pauses.map((pause) => html`<div key=${pause.id}>${t("waits.pause", { service: pause.service, target: pause.target, by: pause.by, reason: pause.reason })} <a href=${href("pauses")}>${t("page.pauses")}</a></div>`)}
      ${letterId && html`<div>${order.parked.map((letter) => html`<div key=${letter.letterId}>${letter.eventType}: ${letter.error} – <a href=${href(`dead-letters?service=${letter.service}&letter=${letter.letterId}`)}>${t("letter.open")}</a></div>`)}</div>`}
      <${Cli} command=${command(["order", "why", order.id])} />
    </div>
  </section>`;
}
