// Each service: whether it answers, its broker, its database, its clock.
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { value } from "../lib/metrics.js";
import { href } from "../lib/router.js";
import { snapshot } from "../lib/snapshot.js";
import { dateTime, duration } from "../lib/time.js";
import { Icon } from "./icons.js";
import { Card, explain, Loading, Service } from "./parts.js";

export function ServiceCards() {
  const services = Object.entries(snapshot.value.services);
  return html`<${Card} title=${t("services")} aside=${html`<a href=${href("system")}>${t("page.system")}</a>`}>
    ${services.length ? services.map(([name, state]) => html`<${ServiceCard} key=${name} name=${name} state=${state} />`) : html`<${Loading} />`}
  <//>`;
}

function ServiceCard({ name, state }) {
  const { metrics, error, lastAt } = state;
  const paused = value(metrics, "todoku_pauses");
  const started = value(metrics, "process_start_time_seconds");
  return html`<div class="service-card" data-service=${name}>
    <div class="row"><${Service} name=${name} /><span class="grow" />
      ${error ? html`<${Mark} level="bad" icon="cross" text=${t("service.down")} />` : value(metrics, "todoku_database_available") === 0 ? html`<${Mark} level="bad" icon="cross" text=${t("service.readOnly")} />` : html`<${Mark} level="good" icon="check" text=${t("service.up")} />`}
      ${paused > 0 && html`<${Mark} level="warn" icon="pauses" text=${t("service.paused")} />`}
    </div>
    ${error && html`<p class="small bad break">${explain(error)}${lastAt && html` <span class="nowrap">${t("service.last", { time: dateTime(lastAt) })}</span>`}</p>`}
    ${metrics && html`<div class="row small quiet">
      <${Fact} good=${value(metrics, "todoku_broker_connected") === 1} text=${t("service.broker")} />
      <${Fact} good=${value(metrics, "todoku_database_available") === 1} text=${t("service.database")} />
      ${started && html`<span>${t("service.since", { duration: duration(state.at / 1000 - started) })}</span>`}
    </div>`}
  </div>`;
}

const Mark = ({ level, icon, text }) => html`<span class=${`badge ${level}`}><${Icon} name=${icon} size=${13} />${text}</span>`;
const Fact = ({ good, text }) => html`<span class=${good ? "" : "bad"}><${Icon} name=${good ? "check" : "cross"} size=${12} /> ${text}</span>`;
