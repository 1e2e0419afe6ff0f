// Versions, clocks, disks, databases, the broker, and the settings in force.
import { html } from "../lib/html.js";
import { about, get } from "../lib/api.js";
import { number, t } from "../lib/i18n.js";
import { value } from "../lib/metrics.js";
import { usePolled } from "../lib/poll.js";
import { query, setQuery } from "../lib/router.js";
import { snapshot } from "../lib/snapshot.js";
import { dateTime, duration, zoneName } from "../lib/time.js";
import { Card, Cli, explain, Found, Head, Service } from "../components/parts.js";
import { Icon } from "../components/icons.js";
import { ofAll, Unreachable } from "./dead-letters.js";

export function System() {
  const state = usePolled((abort) => ofAll(about.value.services, (service) => get(service, "/system", abort)), { seconds: 15, key: about.value.services.join() });
  return html`<${Head} title=${t("page.system")} lead=${t("system.lead", { zone: zoneName(), version: about.value.version })} />
    <div class="stack">
      <${Clocks} />
      <${Found} state=${state}>${({ found, failed }) => html`<${Unreachable} failed=${failed} /><${Parts} found=${found} /><${Settings} found=${found} />`}<//>
      <${Cli} command="todoku doctor" /><${Cli} command="todoku config" />
    </div>`;
}

const Mark = ({ good }) => (good === null ? "–" : html`<span class=${good ? "good" : "bad"}><${Icon} name=${good ? "check" : "cross"} size=${15} /><span class="visually-hidden">${t(good ? "yes" : "no")}</span></span>`);

function Clocks() {
  return html`<${Card} title=${t("services")}><div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">${t("service")}</th><th scope="col">${t("system.answers")}</th><th scope="col">${t("service.broker")}</th><th scope="col">${t("service.database")}</th><th scope="col" class="num">${t("system.ahead")}</th><th scope="col" class="num">${t("system.disk")}</th><th scope="col" class="num">${t("system.memory")}</th><th scope="col">${t("system.started")}</th></tr></thead>
    <tbody>${Object.entries(snapshot.value.services).map(([name, { metrics, error, aheadSeconds }]) => {
      const is = (metric) => (metrics ? value(metrics, metric) === 1 : null);
      const [free, memory, started] = ["todoku_disk_free_bytes", "process_resident_memory_bytes", "process_start_time_seconds"].map((metric) => value(metrics, metric));
      return html`<tr key=${name}><td><${Service} name=${name} /></td><td>${error ? html`<span class="bad small">${explain(error)}</span>` : html`<${Mark} good=${true} />`}</td><td><${Mark} good=${is("todoku_broker_connected")} /></td><td><${Mark} good=${is("todoku_database_available")} /></td><td class="num">${aheadSeconds === null ? "–" : duration(Math.abs(aheadSeconds))}</td><td class="num nowrap">${free === null ? "–" : `${number(free / 2 ** 30, { maximumFractionDigits: 1 })} GiB`}</td><td class="num nowrap">${memory === null ? "–" : `${number(memory / 2 ** 20, { maximumFractionDigits: 0 })} MiB`}</td><td class="nowrap">${started === null ? "–" : dateTime(started * 1000)}</td></tr>`;
    })}</tbody></table></div><//>`;
}

function Parts({ found }) {
  if (!found.length) return null;
  return html`<${Card} title=${t("system.parts")}><div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">${t("service")}</th><th scope="col">Todoku</th><th scope="col">Python</th><th scope="col">${t("service.database")}</th><th scope="col">${t("service.broker")}</th><th scope="col">${t("system.process")}</th></tr></thead>
    <tbody>${found.map(([name, system]) => html`<tr key=${name}><td><${Service} name=${name} /></td><td>${system.version}</td><td>${system.python}</td><td class="break small">${system.database}</td><td class="break small">${system.broker}</td><td class="small">${system.host} · ${system.pid}</td></tr>`)}</tbody>
  </table></div><//>`;
}

function Settings({ found }) {
  if (!found.length) return null;
  const text = (query.value.get("text") ?? "").toLowerCase();
  const names = Object.keys(found[0][1].settings).filter((name) => name.includes(text));
  return html`<${Card} title=${t("system.settings")} aside=${html`<input value=${query.value.get("text") ?? ""} placeholder=${t("system.find")} aria-label=${t("system.find")} onInput=${(event) => setQuery({ text: event.target.value })} />`}><div class="scroll" tabindex="0"><table>
    <thead><tr><th scope="col">${t("system.setting")}</th><th scope="col">${t("system.value")}</th><th scope="col">${t("system.variable")}</th></tr></thead>
    <tbody>${names.map((name) => {
      const values = found.map(([service, system]) => [service, system.settings[name]]);
      const same = values.every(([, each]) => each === values[0][1]);
      return html`<tr key=${name}><td class="mono">${name}</td><td class="break">${same ? shown(values[0][1]) : values.map(([service, each]) => html`<div key=${service}><${Service} name=${service} />: ${shown(each)}</div>`)}</td><td class="mono quiet small">TODOKU_${name.toUpperCase()}</td></tr>`;
    })}</tbody>
  </table></div><//>`;
}

const shown = (each) => (each === null || each === "" ? html`<span class="quiet">–</span>` : html`<code>${each}</code>`);
