// Short messages at the edge, some with an undo.
import { html, signal } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { Icon } from "./icons.js";

const SECONDS = 6;
const SECONDS_WITH_UNDO = 15;
const shown = signal([]);
let last = 0;

export function say(text, { bad = false, undo = null, link = null } = {}) {
  const id = ++last;
  shown.value = [...shown.value.slice(-3), { id, text, bad, undo, link }];
  setTimeout(() => dismiss(id), (undo || bad ? SECONDS_WITH_UNDO : SECONDS) * 1000);
}

const dismiss = (id) => (shown.value = shown.value.filter((each) => each.id !== id));

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">${shown.value.map(
    ({ id, text, bad, undo, link }) => html`<div class=${`toast ${bad ? "bad" : ""}`} key=${id}>
      <${Icon} name=${bad ? "warn" : "check"} /><span class="grow break">${text}</span>
      ${link && html`<a href=${link.href}>${link.text}</a>`}
      ${undo && html`<button type="button" class="button tiny" onClick=${() => (dismiss(id), undo())}>${t("undo")}</button>`}
      <button type="button" class="button ghost tiny" aria-label=${t("close")} onClick=${() => dismiss(id)}><${Icon} name="cross" size=${13} /></button>
    </div>`,
  )}</div>`;
}
