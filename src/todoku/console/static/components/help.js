// The keys.
import { html, useEffect, useRef } from "../lib/html.js";
import { t } from "../lib/i18n.js";

const KEYS = [["/", "keys.search"], ["j k", "keys.rows"], ["Enter", "keys.open"], ["Esc", "keys.leave"], ["g h", "keys.overview"], ["g o", "keys.orders"], ["g e", "keys.events"], ["g d", "keys.letters"], ["g s", "keys.stock"], ["?", "keys.help"]];

export function Help({ open }) {
  const ref = useRef(null);
  useEffect(() => {
    if (open.value) ref.current.showModal();
  }, [open.value]);
  if (!open.value) return null;
  return html`<dialog ref=${ref} onClose=${() => (open.value = false)} aria-labelledby="help-title"><div class="sheet">
    <h2 id="help-title">${t("keys.title")}</h2>
    <dl class="facts">${KEYS.map(([keys, key]) => html`<dt key=${key}>${keys.split(" ").map((each) => html`<kbd>${each}</kbd> `)}</dt><dd>${t(key)}</dd>`)}</dl>
    <div class="buttons"><button type="button" class="button primary" onClick=${() => ref.current.close()}>${t("close")}</button></div>
  </div></dialog>`;
}
