// Dead letters with the same error at one service.
import { html, useState } from "../lib/html.js";
import { change, get } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { duration } from "../lib/time.js";
import { ask, byField } from "./dialog.js";
import { LetterTable } from "./letter-table.js";
import { Action, Ago, Found, Service } from "./parts.js";

const SHOWN = 50;

export function LetterGroup({ group, reload }) {
  const [open, setOpen] = useState(false);
  return html`<div class="dead-group" data-group=${group.group}>
    <div class="row">
      <button type="button" class="button ghost tiny" data-row aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "▾" : "▸"} <${Service} name=${group.service} /></button>
      <span class="badge bad">${t("letters.count", { n: group.letters })}</span>
      ${group.orders > 0 && html`<span class="quiet small">${t("letters.orders", { n: group.orders })}</span>`}
      <span class="grow" />
      <${Action} label=${t("retry.group")} icon="retry" onClick=${() => askToRetry(group, reload)} />
    </div>
    <code class="break">${group.error}</code>
    <div class="quiet small">${t("letters.first")} <${Ago} at=${group.firstParkedAt} /> · ${t("letters.last")} <${Ago} at=${group.lastParkedAt} /></div>
    ${open && html`<${Letters} group=${group} />`}
  </div>`;
}

function Letters({ group }) {
  const state = usePolled((abort) => get(group.service, `/dead-letters?state=PARKED&group=${group.group}&limit=${SHOWN}`, abort), { key: group.group + group.service });
  return html`<div class="dead-letters"><${Found} state=${state}>${(page) => html`<${LetterTable} letters=${page.items.map((each) => ({ service: group.service, ...each }))} />`}<//></div>`;
}

function askToRetry(group, reload) {
  ask({
    title: t("retry.title"),
    intro: t("retry.intro"),
    fields: [{ name: "rate", label: t("retry.rate"), type: "number", min: 1, max: 1000, value: 10, required: true }, byField()],
    preview: ({ rate }) => html`<strong>${t("retry.preview", { n: group.letters, service: group.service })}</strong><div class="small break">${group.error}</div><div class="small">${t("retry.takes", { duration: duration(group.letters / Math.max(1, Number(rate))) })}</div>`,
    cli: ({ rate, by }) => command(["dead", "retry"], { service: group.service, group: group.group, rate, by }),
    confirm: t("retry.confirm", { n: group.letters }),
    run: ({ rate, by }, key) => change("POST", group.service, "/dead-letters/retry", { group: group.group, ratePerSecond: Number(rate), by }, { key }),
    done: ({ scheduled }) => {
      setTimeout(reload, 500);
      return t("retry.done", { n: scheduled });
    },
  });
}
