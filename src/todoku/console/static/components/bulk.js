// Do the same to many things, one after the other: with a pace, a progress, and a stop.
import { html, signal, useEffect, useRef } from "../lib/html.js";
import { number, t } from "../lib/i18n.js";
import { Cli } from "./parts.js";

const MILLISECONDS_EACH = 50; // 20 a second.

const progress = signal(null);

/** Call `run(id)` for each id, and show how far it is: `running` says what is done, `cli` shows what came of it. */
export async function doAll({ ids, run, running, cli, onDone }) {
  const state = { all: ids.length, done: 0, refused: [], running, cli, stopped: false };
  progress.value = { ...state };
  for (const id of ids) {
    if (progress.peek() === null || progress.peek().stopped) break;
    try {
      await run(id);
    } catch (error) {
      state.refused.push({ id, text: error.message });
    }
    state.done += 1;
    progress.value = { ...progress.peek(), ...state, stopped: progress.peek()?.stopped };
    await new Promise((resolve) => setTimeout(resolve, MILLISECONDS_EACH));
  }
  progress.value = { ...progress.peek(), ended: true };
  onDone();
}

export function Progress() {
  const ref = useRef(null);
  const state = progress.value;
  useEffect(() => {
    if (state && !ref.current.open) ref.current.showModal();
  }, [state !== null]);
  if (!state) return null;
  const over = state.ended || state.stopped;
  return html`<dialog ref=${ref} onCancel=${(event) => !over && event.preventDefault()} onClose=${() => (progress.value = null)} aria-labelledby="bulk-title"><div class="sheet">
    <h2 id="bulk-title">${over ? t("bulk.over") : state.running}</h2>
    <progress max=${state.all} value=${state.done} aria-label=${state.running} style=${{ width: "100%" }} />
    <p role="status">${t("bulk.progress", { done: number(state.done), all: number(state.all), refused: number(state.refused.length) })}</p>
    ${state.refused.length > 0 && html`<details><summary>${t("bulk.refused", { n: state.refused.length })}</summary><pre tabindex="0">${state.refused.slice(0, 50).map((each) => `${each.id}  ${each.text}`).join("\n")}</pre></details>`}
    <${Cli} command=${state.cli} />
    <div class="buttons">${over ? html`<button type="button" class="button primary" onClick=${() => ref.current.close()}>${t("close")}</button>` : html`<button type="button" class="button danger" onClick=${() => (progress.value = { ...state, stopped: true })}>${t("bulk.stop")}</button>`}</div>
  </div></dialog>`;
}
