// Do the same to many things, one after the other: with a pace, a progress, and a stop.
import { html, signal } from "../lib/html.js";
import { number, t } from "../lib/i18n.js";
import { Modal } from "./modal.js";
import { Cli } from "./parts.js";

const MILLISECONDS_EACH = 50; // 20 a second.

const progress = signal(null);

/** Call `run(id)` for each id, and show how far it is: `running` says what is done, `cli` shows what came of it. */
export async function doAll({ ids, run, running, cli, onDone }) {
  const refused = [];
  progress.value = { all: ids.length, done: 0, refused, running, cli, stopped: false };
  for (const [index, id] of ids.entries()) {
    if (progress.peek()?.stopped ?? true) break; // Stopped, or its dialog was closed.
    try {
      await run(id);
    } catch (error) {
      refused.push({ id, text: error.message });
    }
    update({ done: index + 1 });
    await new Promise((resolve) => setTimeout(resolve, MILLISECONDS_EACH));
  }
  update({ ended: true });
  onDone();
}

function update(changes) {
  if (progress.peek()) progress.value = { ...progress.peek(), ...changes };
}

export function Progress() {
  const state = progress.value;
  if (!state) return null;
  const over = state.ended || state.stopped;
  const close = () => (progress.value = null);
  return html`<${Modal} label="bulk-title" onClose=${close} onCancel=${(event) => !over && event.preventDefault()}><div class="sheet">
    <h2 id="bulk-title">${over ? t("bulk.over") : state.running}</h2>
    <progress max=${state.all} value=${state.done} aria-label=${state.running} style=${{ width: "100%" }} />
    <p role="status">${t("bulk.progress", { done: number(state.done), all: number(state.all), refused: number(state.refused.length) })}</p>
    ${state.refused.length > 0 && html`<details><summary>${t("bulk.refused", { n: state.refused.length })}</summary><pre tabindex="0">${state.refused.slice(0, 50).map((each) => `${each.id}  ${each.text}`).join("\n")}</pre></details>`}
    <${Cli} command=${state.cli} />
    <div class="buttons">${over ? html`<button type="button" class="button primary" onClick=${close}>${t("close")}</button>` : html`<button type="button" class="button danger" onClick=${() => update({ stopped: true })}>${t("bulk.stop")}</button>`}</div>
  </div><//>`;
}
