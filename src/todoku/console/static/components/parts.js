// Small parts: status, time, id, command, empty, error.
import { html, useState } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { href } from "../lib/router.js";
import { ago, dateTime, precise } from "../lib/time.js";
import { say } from "./toasts.js";
import { Icon } from "./icons.js";

/** How a status looks: colour, icon. The text is in the catalogue. */
const STATUSES = {
  PENDING: ["info", "clock"],
  AWAITING_SHIPMENT: ["info", "truck"],
  COMPLETED: ["good", "check"],
  CANCELLED_NO_STOCK: ["", "stock"],
  CANCELLING: ["undo", "undo"],
  CANCELLED: ["", "undo"],
  SHIPMENT_FAILED: ["bad", "cross"],
  INITIATED: ["info", "clock"],
  EXPECTED: ["", "clock"],
  BOOKING: ["info", "truck"],
  FAILED: ["bad", "cross"],
  RESERVED: ["info", "stock"],
  REFUSED: ["bad", "cross"],
  WAITING: ["warn", "clock"],
  SHIPPED: ["good", "check"],
  RELEASED: ["undo", "undo"],
  PARKED: ["bad", "warn"],
  RETRIED: ["good", "retry"],
  EDITED: ["good", "check"],
  DISCARDED: ["", "cross"],
  PAUSED: ["warn", "pauses"],
  RESUMING: ["info", "play"],
  RESUMED: ["", "play"],
  requested: ["info", "clock"],
  confirmed: ["warn", "pauses"],
  refused: ["bad", "cross"],
  released: ["", "play"],
  expired: ["", "clock"],
};

export function Status({ value }) {
  const [colour, icon] = STATUSES[value] ?? ["", "info"];
  return html`<span class=${`badge ${colour}`} title=${value}><${Icon} name=${icon} size=${13} />${t(`status.${value}`) === `status.${value}` ? value : t(`status.${value}`)}</span>`;
}

export const Service = ({ name }) => html`<span class=${`service ${name}`}>${name}</span>`;

export const When = ({ at }) => (at ? html`<time datetime=${at} title=${precise(at)} class="nowrap">${dateTime(at)}</time>` : "–");
export const Ago = ({ at }) => (at ? html`<time datetime=${at} title=${precise(at)} class="nowrap">${ago(at)}</time>` : "–");

export const shortId = (id) => `…${id.slice(-8)}`;
export const OrderLink = ({ id, ...more }) =>
  id ? html`<a class="id" href=${href(`orders/${id}`)} title=${id} ...${more}>${shortId(id)}</a>` : "–";

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say(t("copied"));
  } catch {
    say(t("copy.failed"), { bad: true });
  }
}

export const Copy = ({ text, label }) =>
  html`<button type="button" class="button ghost tiny" onClick=${() => copy(text)} aria-label=${label ?? t("copy")} title=${label ?? t("copy")}><${Icon} name="copy" size=${14} /></button>`;

/** The command that does the same, to copy. */
export const Cli = ({ command }) =>
  html`<div class="cli" role="group" aria-label=${t("cli")}><span class="prompt" aria-hidden="true">$</span><code>${command}</code><${Copy} text=${command} label=${t("cli.copy")} /></div>`;

export const Empty = ({ icon = "check", title, children }) =>
  html`<div class="empty"><${Icon} name=${icon} size=${34} /><strong>${title}</strong>${children}</div>`;

export const Loading = () => html`<div role="status"><span class="visually-hidden">${t("loading")}</span>${[1, 2, 3].map((n) => html`<div class="skeleton" key=${n} />`)}</div>`;

/** Return what went wrong in words; what the services say is in English. */
export function explain(error) {
  if (error.slug === "service-unanswered") return t(error.changes ? "error.unanswered.change" : "error.unanswered", error);
  if (error.status === 0) return t("error.console");
  if (error.slug === "service-unreachable") return t("error.service", { detail: error.message });
  if (error.status === 401) return t("error.login");
  if (error.status === 403) return t("error.forbidden", { detail: error.message });
  return error.message;
}

export const Failed = ({ error, onRetry }) =>
  html`<div class="notice bad" role="alert"><${Icon} name="warn" /><div class="grow break">${explain(error)}</div>${
    onRetry && html`<button type="button" class="button tiny" onClick=${onRetry}>${t("again")}</button>`
  }</div>`;

/** What was found, what went wrong, or that it is being looked for. */
export function Found({ state, children }) {
  if (state.data !== null) {
    return html`${state.error && html`<div class="body"><${Failed} error=${state.error} onRetry=${state.reload} /></div>`}${children(state.data)}`;
  }
  return state.error ? html`<div class="body"><${Failed} error=${state.error} onRetry=${state.reload} /></div>` : html`<${Loading} />`;
}

export const Head = ({ title, lead, children }) =>
  html`<div class="page-head"><div class="grow"><h1>${title}</h1>${lead && html`<p class="lead">${lead}</p>`}</div><div class="row">${children}</div></div>`;

export const Card = ({ title, aside, children, ...more }) =>
  html`<section class="card" ...${more}>${title && html`<header><h2>${title}</h2><div class="row">${aside}</div></header>`}${children}</section>`;

/** A button that shows its action only while it can be done; else it says why not. */
export const Action = ({ label, icon, why, onClick, danger, primary }) =>
  html`<button type="button" class=${`button ${danger ? "danger" : ""} ${primary ? "primary" : ""}`} disabled=${!!why} title=${why || undefined} onClick=${onClick}>${
    icon && html`<${Icon} name=${icon} />`
  }${label}</button>`;

export function Json({ value }) {
  const [wide] = useState(() => JSON.stringify(value, null, 2));
  return html`<pre tabindex="0">${wide}</pre>`;
}
