// Whether what is shown is as of now.
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { connection, isPaused, pause, resume } from "../lib/live.js";
import { Icon } from "./icons.js";

const LOOKS = { live: ["good", "live"], connecting: ["info", "clock"], paused: ["", "pauses"], reconnecting: ["warn", "retry"], stale: ["warn", "warn"] };

export function Connection() {
  const state = connection.value;
  const [colour, icon] = LOOKS[state];
  const paused = isPaused();
  return html`<button type="button" class=${`chip ${colour}`} data-connection=${state} title=${t(paused ? "connection.resume" : "connection.pause")} aria-label=${`${t(`connection.${state}`)}: ${t(paused ? "connection.resume" : "connection.pause")}`} onClick=${paused ? resume : pause}>
    <${Icon} name=${icon} size=${14} /><span aria-live="polite">${t(`connection.${state}`)}</span>
  </button>`;
}
