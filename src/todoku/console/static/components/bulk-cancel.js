// Cancel all orders that match the filters: with a preview, a pace, and a stop.
import { html, signal, useEffect, useRef } from "../lib/html.js";
import { change, get } from "../lib/api.js";
import { number, t } from "../lib/i18n.js";
import { listCommand } from "../pages/orders.js";
import { ask } from "./dialog.js";
import { Action, Cli } from "./parts.js";

const MATCHING_MAX = 1000;
const OPEN = ["PENDING", "AWAITING_SHIPMENT", "CANCELLING"];
const MILLISECONDS_EACH = 50; // 20 a second.

const progress = signal(null);

/** Return the open orders that match, at most MATCHING_MAX, and whether there are more. */
async function findMatching(asked) {
  const found = [];
  let cursor = null;
  do {
    const wanted = new URLSearchParams(asked);
    wanted.set("limit", "100");
    if (cursor) wanted.set("cursor", cursor);
    const page = await get("orders", `/orders?${wanted}`);
    found.push(...page.items.filter((order) => OPEN.includes(order.status)));
    cursor = page.nextCursor;
  } while (cursor && found.length < MATCHING_MAX);
  return { orders: found.slice(0, MATCHING_MAX), more: cursor !== null };
}

export function CancelMatching({ asked, total, onDone }) {
  const filtered = asked.toString() !== "" && total !== 0;
  const start = async () => {
    const { orders, more } = await findMatching(asked);
    ask({
      title: t("bulk.title", { n: orders.length }),
      intro: t(more ? "bulk.more" : "bulk.intro", { n: MATCHING_MAX }),
      fields: [{ name: "reason", label: t("field.reason"), required: true, maxlength: 500 }],
      preview: () => html`<strong>${t("bulk.preview", { n: orders.length })}</strong><div class="small mono">${orders.slice(0, 5).map((order) => html`<div key=${order.id}>${order.id}</div>`)}${orders.length > 5 && "…"}</div>`,
      cli: ({ reason }) => `${listCommand(asked)} --limit 1000 --json | jq -r .id | xargs -n1 todoku order cancel --reason '${reason.replaceAll("'", "’") || "…"}'`,
      confirm: t("bulk.confirm", { n: orders.length }),
      danger: true,
      blocked: () => orders.length === 0,
      run: async ({ reason }, key) => void cancelAll(orders, reason, key, onDone),
    });
  };
  return html`<${Action} label=${t("bulk.button")} icon="undo" why=${filtered ? "" : t("bulk.why")} onClick=${start} /><${Progress} />`;
}

async function cancelAll(orders, reason, key, onDone) {
  const state = { all: orders.length, done: 0, refused: [], stopped: false };
  progress.value = { ...state };
  for (const order of orders) {
    if (progress.peek() === null || progress.peek().stopped) break;
    try {
      await change("POST", "orders", `/orders/${order.id}/cancel`, { reason }, { key: `${key}-${order.id}` });
    } catch (error) {
      state.refused.push({ id: order.id, text: error.message });
    }
    state.done += 1;
    progress.value = { ...progress.peek(), ...state, stopped: progress.peek().stopped };
    await new Promise((resolve) => setTimeout(resolve, MILLISECONDS_EACH));
  }
  progress.value = { ...progress.peek(), ended: true };
  onDone();
}

function Progress() {
  const ref = useRef(null);
  const state = progress.value;
  useEffect(() => {
    if (state && !ref.current.open) ref.current.showModal();
  }, [state !== null]);
  if (!state) return null;
  const over = state.ended || state.stopped;
  return html`<dialog ref=${ref} onCancel=${(event) => !over && event.preventDefault()} onClose=${() => (progress.value = null)} aria-labelledby="bulk-title"><div class="sheet">
    <h2 id="bulk-title">${t(over ? "bulk.over" : "bulk.running")}</h2>
    <progress max=${state.all} value=${state.done} aria-label=${t("bulk.running")} style=${{ width: "100%" }} />
    <p role="status">${t("bulk.progress", { done: number(state.done), all: number(state.all), refused: number(state.refused.length) })}</p>
    ${state.refused.length > 0 && html`<details><summary>${t("bulk.refused", { n: state.refused.length })}</summary><pre tabindex="0">${state.refused.slice(0, 50).map((each) => `${each.id}  ${each.text}`).join("\n")}</pre></details>`}
    <${Cli} command="todoku order list --status CANCELLING" />
    <div class="buttons">${over ? html`<button type="button" class="button primary" onClick=${() => ref.current.close()}>${t("close")}</button>` : html`<button type="button" class="button danger" onClick=${() => (progress.value = { ...state, stopped: true })}>${t("bulk.stop")}</button>`}</div>
  </div></dialog>`;
}
