// Cancel all orders that match the filters: with a preview, a pace, and a stop.
import { html } from "../lib/html.js";
import { change, get } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { listCommand } from "../pages/orders.js";
import { doAll } from "./bulk.js";
import { ask } from "./dialog.js";
import { Action } from "./parts.js";

const MATCHING_MAX = 1000;
const OPEN = ["PENDING", "AWAITING_SHIPMENT", "CANCELLING"];

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
      run: async ({ reason }, key) =>
        void doAll({
          ids: orders.map((order) => order.id),
          run: (id) => change("POST", "orders", `/orders/${id}/cancel`, { reason }, { key: `${key}-${id}` }),
          running: t("bulk.running"),
          cli: "todoku order list --status CANCELLING",
          onDone,
        }),
    });
  };
  return html`<${Action} label=${t("bulk.button")} icon="undo" why=${filtered ? "" : t("bulk.why")} onClick=${start} />`;
}
