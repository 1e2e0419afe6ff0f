// Who consumes whose events, how far each is behind, and what waits in each service.
import { html } from "../lib/html.js";
import { number, t } from "../lib/i18n.js";
import { byLabel, sum, value } from "../lib/metrics.js";
import { snapshot } from "../lib/snapshot.js";
import { duration } from "../lib/time.js";
import { Icon } from "../components/icons.js";
import { Card, Cli, Head, Loading, Service } from "../components/parts.js";

const SLOW_SECONDS = 5;
const STUCK_SECONDS = 30;

/** Return what is known of each publisher and subscriber. */
export function deliveries(services) {
  return Object.entries(services).flatMap(([publisher, { metrics }]) => {
    const lag = byLabel(metrics, "todoku_subscriber_lag_events", "subscriber");
    const pending = byLabel(metrics, "todoku_outbox_pending_deliveries", "subscriber");
    const oldest = byLabel(metrics, "todoku_outbox_oldest_pending_seconds", "subscriber");
    return [...new Set([...pending.keys(), ...lag.keys()])].map((subscriber) => ({ publisher, subscriber, lag: lag.get(subscriber) ?? null, pending: pending.get(subscriber) ?? null, oldest: oldest.get(subscriber) ?? null }));
  });
}

/** Return how a delivery is, as the key of a text. */
export function condition({ oldest, pending }) {
  if (oldest > STUCK_SECONDS) return "stuck";
  if (oldest > SLOW_SECONDS) return "behind";
  return pending ? "working" : "current";
}

const LOOKS = { current: ["good", "check"], working: ["info", "play"], behind: ["warn", "clock"], stuck: ["bad", "warn"] };

export function Subscribers() {
  const { services } = snapshot.value;
  if (!Object.keys(services).length) return html`<${Head} title=${t("page.subscribers")} /><${Card}><${Loading} /><//>`;
  return html`<${Head} title=${t("page.subscribers")} lead=${t("subscribers.lead")} />
    <div class="stack">
      <${Card} title=${t("subscribers.deliveries")}><div class="scroll" tabindex="0"><table>
        <thead><tr><th scope="col">${t("subscribers.publisher")}</th><th scope="col">${t("subscribers.subscriber")}</th><th scope="col">${t("subscribers.condition")}</th><th scope="col" class="num">${t("subscribers.pending")}</th><th scope="col" class="num">${t("subscribers.oldest")}</th></tr></thead>
        <tbody>${deliveries(services).map((each) => {
          const found = condition(each);
          return html`<tr key=${`${each.publisher}-${each.subscriber}`}><td><${Service} name=${each.publisher} /></td><td><${Service} name=${each.subscriber} /></td><td><span class=${`badge ${LOOKS[found][0]}`}><${Icon} name=${LOOKS[found][1]} size=${13} />${t(`condition.${found}`)}</span></td><td class="num">${each.pending === null ? "–" : number(each.pending)}</td><td class="num">${each.oldest ? duration(each.oldest) : "–"}</td></tr>`;
        })}</tbody>
      </table></div><p class="body quiet small">${t("subscribers.note")}</p><//>
      <${Card} title=${t("subscribers.inside")}><div class="scroll" tabindex="0"><table>
        <thead><tr><th scope="col">${t("service")}</th><th scope="col" class="num">${t("subscribers.mailbox")}</th><th scope="col" class="num">${t("subscribers.handled")}</th><th scope="col" class="num">${t("subscribers.retried")}</th><th scope="col" class="num">${t("subscribers.parked")}</th><th scope="col" class="num">${t("subscribers.unsent")}</th><th scope="col" class="num">${t("subscribers.repeated")}</th><th scope="col" class="num">${t("subscribers.effects")}</th></tr></thead>
        <tbody>${Object.entries(services).map(([name, { metrics }]) => {
          const messages = byLabel(metrics, "todoku_messages_total", "outcome");
          const shown = (found) => (found === null || found === undefined ? "–" : number(found));
          return html`<tr key=${name}><td><${Service} name=${name} /></td><td class="num">${shown(value(metrics, "todoku_mailbox_messages"))}</td><td class="num">${shown(messages.get("acknowledged"))}</td><td class="num">${shown(messages.get("nacked"))}</td><td class="num">${shown(messages.get("parked"))}</td><td class="num">${shown(value(metrics, "todoku_outbox_unsent_events"))}</td><td class="num">${shown(value(metrics, "todoku_events_repeated_total"))}</td><td class="num">${metrics ? number(sum(metrics, "todoku_effects_running")) : "–"}</td></tr>`;
        })}</tbody>
      </table></div><//>
      <${Cli} command="todoku doctor" />
    </div>`;
}
