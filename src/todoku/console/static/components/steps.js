// How far an order is: accepted, reserved, sent, ended.
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";

const STEPS = {
  PENDING: ["done", "now", "", ""],
  AWAITING_SHIPMENT: ["done", "done", "now", ""],
  COMPLETED: ["done", "done", "done", "done"],
  CANCELLED_NO_STOCK: ["done", "bad", "", ""],
  CANCELLING: ["done", "done", "undo", ""],
  CANCELLED: ["done", "undo", "undo", "undo"],
  SHIPMENT_FAILED: ["done", "undo", "bad", ""],
};

export const Steps = ({ status, title }) =>
  html`<span class="steps" role="img" aria-label=${t("order.steps", { status: t(`status.${status}`) })} title=${title}>${(STEPS[status] ?? []).map((kind, index) => html`<i key=${index} class=${kind} />`)}</span>`;
