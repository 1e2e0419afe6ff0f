// The holds of an order.
import { html } from "../lib/html.js";
import { change } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { ask } from "./dialog.js";
import { Action, Card, Status, When } from "./parts.js";

const HOLDING = ["requested", "confirmed"];

export function Holds({ order, reload }) {
  if (!order.holds.length) return null;
  return html`<${Card} title=${t("holds")}>${order.holds.map(
    (hold) => html`<div class="body" key=${hold.id}>
      <div class="row"><strong>${hold.holder}</strong><${Status} value=${hold.state} /><span class="grow" />
        ${HOLDING.includes(hold.state) && html`<${Action} label=${t("release.button")} icon="play" onClick=${() => askToRelease(order, hold, reload)} />`}
      </div>
      <p class="break">${hold.reason}</p>
      <p class="quiet small">${hold.by ?? ""} <${When} at=${hold.requestedAt} />${hold.expiresAt && html` · ${t("hold.expires")} <${When} at=${hold.expiresAt} />`}${hold.refusal && html` · ${hold.refusal}`}</p>
    </div>`,
  )}<//>`;
}

export function askToRelease(order, hold, reload) {
  ask({
    title: t("release.title"),
    intro: t("release.intro", { holder: hold.holder, reason: hold.reason }),
    cli: () => command(["order", "release", order.id, hold.id]),
    confirm: t("release.confirm"),
    run: (_, key) => change("POST", "orders", `/orders/${order.id}/holds/${hold.id}/release`, undefined, { key }),
    done: () => {
      reload();
      return t("release.done");
    },
  });
}
