// The story of an order in plain words.
import { html } from "../lib/html.js";
import { has, items, money, t } from "../lib/i18n.js";
import { tell } from "../lib/story.js";
import { clock, dateTime, duration, precise } from "../lib/time.js";
import { Icon } from "./icons.js";

const ICONS = { start: "plus", done: "check", ended: "undo", failed: "cross", retry: "retry", compensation: "undo", held: "pauses", parked: "warn", step: "play" };
const WAITED_SECONDS = 1;

export function Story({ events }) {
  const show = {
    items,
    money: (amount, currency) => money(amount, currency ?? "JPY"),
    time: (when) => (when ? dateTime(when) : "–"),
    whole: t("story.whole"),
    because: (reason) => t("story.because", { reason }),
  };
  return html`<ol class="story body">${tell(events, show).map(
    (part) => html`<li key=${part.id}>
      <span class=${`dot ${part.kind}`}><${Icon} name=${ICONS[part.kind]} size=${12} /></span>
      <span class="break">${has(part.key) ? t(part.key, part.values) : t("story.other", { type: part.type, service: part.source })}${part.waited >= WAITED_SECONDS && html`<span class="waited"> ${t("story.waited", { duration: duration(part.waited) })}</span>`}</span>
      <time datetime=${part.time} title=${precise(part.time)}>${clock(part.time)}</time>
    </li>`,
  )}</ol>`;
}
