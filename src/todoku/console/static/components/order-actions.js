// What can be done with an order; what cannot be done says why.
import { html } from "../lib/html.js";
import { change } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { ask } from "./dialog.js";
import { askToRelease } from "./holds.js";
import { Action } from "./parts.js";

const OPEN = ["PENDING", "AWAITING_SHIPMENT"];

/** Return why an order cannot be changed, as the key of a text; empty if it can. */
export function whyNot(order, what) {
  if (order.status === "CANCELLING") return "why.cancelling";
  if (!OPEN.includes(order.status)) return "why.ended";
  if (what === "hold" && order.holds.length >= 100) return "why.holds";
  return "";
}

export function OrderActions({ order, reload }) {
  const reason = (what) => {
    const key = whyNot(order, what);
    return key && t(key);
  };
  return html`<${Action} label=${t("hold.button")} icon="pauses" why=${reason("hold")} onClick=${() => askToHold(order, reload)} />
    <${Action} label=${t("cancel.button")} icon="undo" danger why=${reason("cancel")} onClick=${() => askToCancel(order, reload)} />`;
}

function askToHold(order, reload) {
  ask({
    title: t("hold.title"),
    intro: t("hold.intro"),
    fields: [
      { name: "holder", label: t("hold.holder"), required: true, maxlength: 64, suggestions: ["fraud-review", "address-check", "customer-service"], hint: t("hold.holder.hint") },
      { name: "reason", label: t("field.reason"), required: true, maxlength: 500 },
    ],
    cli: ({ holder, reason }) => command(["order", "hold", order.id], { holder: holder || "HOLDER", reason: reason || "REASON" }),
    confirm: t("hold.confirm"),
    run: ({ holder, reason }, key) => change("POST", "orders", `/orders/${order.id}/holds`, { holder, reason }, { key }),
    done: (hold) => {
      reload();
      return { text: t("hold.done"), undo: () => askToRelease(order, hold, reload) };
    },
  });
}

function askToCancel(order, reload) {
  const lines = order.lines.filter((line) => line.ordered > line.cancelled);
  ask({
    title: t("cancel.title"),
    intro: t("cancel.intro"),
    fields: [
      ...(lines.length > 1 ? [{ name: "product", label: t("cancel.what"), value: "", options: [{ value: "", label: t("cancel.everything") }, ...lines.map((line) => ({ value: line.productId, label: `${line.productId} ×${line.ordered - line.cancelled}` }))] }] : []),
      { name: "reason", label: t("field.reason"), maxlength: 500 },
    ],
    cli: (values) => command(["order", "cancel", order.id, ...pieces(values, lines).map((item) => `${item.productId}:${item.quantity}`)], { reason: values.reason }),
    confirm: t("cancel.confirm"),
    danger: true,
    run: (values, key) => {
      const items = pieces(values, lines);
      return change("POST", "orders", `/orders/${order.id}/cancel`, { ...(values.reason ? { reason: values.reason } : {}), ...(items.length ? { items } : {}) }, { key });
    },
    done: () => {
      reload();
      return t("cancel.done");
    },
  });
}

function pieces({ product }, lines) {
  const line = lines.find((each) => each.productId === product);
  return line ? [{ productId: product, quantity: line.ordered - line.cancelled }] : [];
}
