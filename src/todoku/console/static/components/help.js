// The keys.
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { Modal } from "./modal.js";

const KEYS = [["/", "keys.search"], ["j k", "keys.rows"], ["Enter", "keys.open"], ["Esc", "keys.leave"], ["g h", "keys.overview"], ["g o", "keys.orders"], ["g e", "keys.events"], ["g d", "keys.letters"], ["g s", "keys.stock"], ["?", "keys.help"]];

export function Help({ open }) {
  if (!open.value) return null;
  const close = () => (open.value = false);
  return html`<${Modal} label="help-title" onClose=${close}><div class="sheet">
    <h2 id="help-title">${t("keys.title")}</h2>
    <dl class="facts">${KEYS.map(([keys, key]) => html`<dt key=${key}>${keys.split(" ").map((each) => html`<kbd>${each}</kbd> `)}</dt><dd>${t(key)}</dd>`)}</dl>
    <div class="buttons"><button type="button" class="button primary" onClick=${close}>${t("close")}</button></div>
  </div><//>`;
}
