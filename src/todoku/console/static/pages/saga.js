// Which service publishes which events for which: from their own documents, with what flows now.
import { html } from "../lib/html.js";
import { about, get } from "../lib/api.js";
import { number, t } from "../lib/i18n.js";
import { countsByType, openedAt } from "../lib/live.js";
import { byLabel } from "../lib/metrics.js";
import { usePolled } from "../lib/poll.js";
import { href } from "../lib/router.js";
import { edgesOf, pairs, places } from "../lib/saga.js";
import { snapshot } from "../lib/snapshot.js";
import { now } from "../lib/time.js";
import { Card, Found, Head, Service } from "../components/parts.js";
import { ofAll, Unreachable } from "./dead-letters.js";

const WIDTH = 860;
const HEIGHT = 430;
const BOX = [148, 54];

export function Saga() {
  const state = usePolled((abort) => ofAll(about.value.services, (service) => get(service, "/asyncapi.json", abort)), { seconds: 60, key: about.value.services.join() });
  return html`<${Head} title=${t("page.saga")} lead=${t("saga.lead")} />
    <${Found} state=${state}>${({ found, failed }) => {
      const edges = edgesOf(found.map(([, document]) => document));
      return html`<div class="stack"><${Unreachable} failed=${failed} /><${Card}><div class="body"><${Map} edges=${edges} /></div><//><${Table} edges=${edges} /></div>`;
    }}<//>`;
}

const minutes = () => Math.max(1 / 60, (now.value - openedAt.value) / 60_000);
const pending = (from, to) => byLabel(snapshot.value.services[from]?.metrics, "todoku_outbox_pending_deliveries", "subscriber").get(to) ?? 0;

function Map({ edges }) {
  const where = places(about.value.services, WIDTH, HEIGHT);
  return html`<svg class="saga" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="group" aria-label=${t("saga.described")}>
    <defs><marker id="saga-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5L8 4L0 7.5z" fill="context-stroke" /></marker></defs>
    ${pairs(edges, countsByType.value).map((pair) => html`<${Edge} key=${`${pair.from} ${pair.to}`} pair=${pair} from=${where.get(pair.from)} to=${where.get(pair.to)} />`)}
    ${[...where].map(([name, [x, y]]) => html`<a key=${name} href=${href(`events?source=${name}`)}><g class="node"><rect x=${x - BOX[0] / 2} y=${y - BOX[1] / 2} width=${BOX[0]} height=${BOX[1]} rx="10" /><text x=${x} y=${y - 1}>${name}</text><text class="sub" x=${x} y=${y + 17}>${t("saga.published", { n: edges.filter((edge) => edge.from === name).map((edge) => edge.type).filter((type, index, all) => all.indexOf(type) === index).length })}</text></g></a>`)}
  </svg>`;
}

function Edge({ pair, from, to }) {
  if (!from || !to) return null;
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = Math.hypot(dx, dy);
  const [nx, ny] = [-dy / length, dx / length];
  const bend = 26;
  const [mx, my] = [(from[0] + to[0]) / 2 + nx * bend * 2, (from[1] + to[1]) / 2 + ny * bend * 2];
  const start = edgeOfBox(from, [mx, my]);
  const end = edgeOfBox(to, [mx, my]);
  const rate = pair.count / minutes();
  const waiting = pending(pair.from, pair.to);
  const [lx, ly] = [(from[0] + to[0]) / 2 + nx * bend * 1.05, (from[1] + to[1]) / 2 + ny * bend * 1.05];
  return html`<g><title>${pair.types.map((each) => each.type).join("\n")}</title><path class=${`edge ${pair.count ? "active" : ""}`} d=${`M${start} Q${mx} ${my} ${end}`} stroke-width=${1.4 + Math.min(4, Math.log10(1 + rate))} marker-end="url(#saga-tip)" />
    <text class=${`label ${pair.count ? "active" : ""}`} x=${lx} y=${ly}>${t("saga.types", { n: pair.types.length })}${pair.count ? ` · ${t("saga.rate", { rate: number(rate, { maximumFractionDigits: 1 }) })}` : ""}${waiting ? ` · ${t("saga.waiting", { n: waiting })}` : ""}</text></g>`;
}

/** Return where a line from the middle of a box to a point leaves the box. */
function edgeOfBox([x, y], [px, py]) {
  const [dx, dy] = [px - x, py - y];
  const scale = Math.min((BOX[0] / 2 + 6) / Math.abs(dx || 1e-9), (BOX[1] / 2 + 6) / Math.abs(dy || 1e-9));
  return `${(x + dx * scale).toFixed(1)} ${(y + dy * scale).toFixed(1)}`;
}

function Table({ edges }) {
  return html`<${Card} title=${t("saga.table")}><div class="scroll"><table>
    <thead><tr><th scope="col">${t("event.type")}</th><th scope="col">${t("subscribers.publisher")}</th><th scope="col">${t("subscribers.subscriber")}</th><th scope="col">${t("saga.kind")}</th><th scope="col" class="num">${t("saga.seen")}</th></tr></thead>
    <tbody>${edges.map((edge) => html`<tr key=${edge.type + edge.to} data-row><td><a href=${href(`events?type=${edge.type}`)}>${edge.type}</a></td><td><${Service} name=${edge.from} /></td><td><${Service} name=${edge.to} /></td><td>${edge.compensates ? html`<span class="undo">${t("saga.compensation")}</span>` : t("saga.forward")}</td><td class="num">${number(countsByType.value.get(edge.type) ?? 0)}</td></tr>`)}</tbody>
  </table></div><p class="body quiet small">${t("saga.note")}</p><//>`;
}
