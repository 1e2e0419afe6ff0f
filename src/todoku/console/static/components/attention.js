// What needs a person: what it is, since when, what one can do, and the command.
import { html } from "../lib/html.js";
import { problemId } from "../lib/attention.js";
import { has, number, t } from "../lib/i18n.js";
import { href } from "../lib/router.js";
import { problems, refresh } from "../lib/snapshot.js";
import { callLimit, dateTime, duration, now, pauseLimit } from "../lib/time.js";
import { Icon } from "./icons.js";
import { Action, Card, Cli, explain, Loading } from "./parts.js";
import { askToResume } from "./pause-actions.js";

const ICONS = { bad: "warn", warn: "warn", info: "pauses" };

export function Attention({ known }) {
  if (!known) return html`<${Card} title=${t("attention")}><${Loading} /><//>`;
  const found = problems.value;
  if (!found.length) return html`<${Card} title=${t("attention")}><div class="all-well good"><${Icon} name="check" size=${20} /><strong>${t("attention.none")}</strong></div><//>`;
  return html`<${Card} title=${t("attention")} aside=${html`<span class=${`count ${found[0].level}`}>${found.length}</span>`}><ul class="attention">${found.map((problem) => html`<${Problem} key=${problemId(problem)} problem=${problem} />`)}</ul><//>`;
}

function Problem({ problem }) {
  const { key, level, values, link, command, error, pause } = problem;
  return html`<li class="row-item" data-problem=${key}>
    <span class=${level}><${Icon} name=${ICONS[level]} size=${18} /></span>
    <div class="grow"><a href=${href(link)} data-row><strong>${title(problem)}</strong></a>
      <p class="quiet small">${since(problem)}</p>
      ${error && html`<p class="small break"><code>${explain(error)}</code></p>`}
      ${has(`${key}.why`) && html`<p class="quiet small">${t(`${key}.why`, words(values))}</p>`}
      <${Cli} command=${command} />
    </div>
    ${pause && html`<${Action} label=${t("resume.button")} icon="play" onClick=${() => askToResume(pause, refresh)} />`}
  </li>`;
}

export const title = ({ key, values }) => t(key, words(values));

/** Return since when a problem lasts; if no service tells, since when this page has seen it. */
export function since({ since: began, noticedAt }) {
  const at = began ?? noticedAt;
  return t(began === null ? "attention.noticed" : "attention.since", { time: dateTime(at), duration: duration(Math.max(1, (now.value - at) / 1000)) });
}

function words(values) {
  const shown = { ...values };
  if (values.seconds !== undefined) shown.seconds = duration(Math.abs(values.seconds));
  if (values.callLimit !== undefined) shown.limit = callLimit(values.callLimit);
  if (values.pauseLimit !== undefined) shown.limit = pauseLimit(values.pauseLimit);
  if (values.bytes !== undefined) shown.space = `${number(values.bytes / 2 ** 20, { maximumFractionDigits: 0 })} MiB`;
  if (values.target !== undefined) shown.target = values.target === "service" ? values.service : `${values.target} (${values.service})`;
  return shown;
}
