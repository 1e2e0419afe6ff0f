// Who changed what, where the services keep a log of it.
import { html } from "../lib/html.js";
import { about, get } from "../lib/api.js";
import { has, t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { Card, Empty, Found, Head, Service, When } from "../components/parts.js";
import { ofAll, Unreachable } from "./dead-letters.js";

const ROWS = 100;
const SHOWN_APART = new Set(["at", "actor", "operation", "outcome", "service", "chain", "sequence"]);

async function entries(services, abort) {
  const { found, failed } = await ofAll(services, async (service) => {
    const document = await get(service, "/openapi.json", abort);
    return document.paths["/audit"] ? get(service, `/audit?limit=${ROWS}`, abort) : null;
  });
  const kept = found.filter(([, page]) => page);
  const rows = kept.flatMap(([service, page]) => page.items.map((item) => ({ service, ...item })));
  return { offered: kept.length > 0, failed, rows: rows.sort((a, b) => when(b).localeCompare(when(a))) };
}

const when = (entry) => entry.at ?? "";

export function Audit() {
  const state = usePolled((abort) => entries(about.value.services, abort), { seconds: 15, key: about.value.services.join() });
  return html`<${Head} title=${t("page.audit")} lead=${t("audit.lead")} /><${Card}><${Found} state=${state}>${({ offered, failed, rows }) =>
    html`<${Unreachable} failed=${failed} />${!offered ? html`<${Empty} icon="audit" title=${t("audit.absent")}>${t("audit.absent.hint")}<//>` : rows.length ? html`<${Table} rows=${rows} />` : html`<${Empty} icon="audit" title=${t("audit.none")} />`}`}<//><//>`;
}

const Table = ({ rows }) => html`<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">${t("stock.when")}</th><th scope="col">${t("service")}</th><th scope="col">${t("audit.who")}</th><th scope="col">${t("audit.what")}</th><th scope="col">${t("audit.outcome")}</th><th scope="col">${t("audit.details")}</th></tr></thead><tbody>${rows.map(
  (entry, index) => html`<tr key=${`${entry.service}-${entry.chain}-${entry.sequence ?? index}`} data-row><td><${When} at=${when(entry)} /></td><td><${Service} name=${entry.service} /></td><td>${entry.actor ?? "–"}</td><td class="mono small">${entry.operation}</td><td><span class=${entry.outcome === "done" ? "good" : entry.outcome === "repeated" ? "quiet" : "bad"}>${named("outcome", entry.outcome)}</span></td><td class="break small quiet">${details(entry)}</td></tr>`,
)}</tbody></table></div>`;

/** Return the rest of an entry on one line. */
export function details(entry) {
  const rest = Object.entries(entry).filter(([name, value]) => !SHOWN_APART.has(name) && value !== null && value !== "" && !(name === "times" && value === 1));
  return rest.map(([name, value]) => `${named("key", name)}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
}

/** Return what a word of the log is called; those of which there are many, such as problems, stay as they are. */
const named = (kind, word) => (has(`audit.${kind}.${word}`) ? t(`audit.${kind}.${word}`) : word);
