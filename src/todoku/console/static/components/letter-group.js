// Dead letters with the same error at one service.
import { html, useState } from "../lib/html.js";
import { change, get } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { duration } from "../lib/time.js";
import { doAll } from "./bulk.js";
import { ask, byField } from "./dialog.js";
import { LetterTable } from "./letter-table.js";
import { Action, Ago, Found, Service } from "./parts.js";

const SHOWN = 50;
const PAGE = 200;
const DISCARDED_MAX = 1000;

export function LetterGroup({ group, reload }) {
  const [open, setOpen] = useState(false);
  return html`<div class="dead-group" data-group=${group.group}>
    <div class="row">
      <button type="button" class="button ghost tiny" data-row aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "▾" : "▸"} <${Service} name=${group.service} /></button>
      <span class="badge bad">${t("letters.count", { n: group.letters })}</span>
      ${group.orders > 0 && html`<span class="quiet small">${t("letters.orders", { n: group.orders })}</span>`}
      <span class="grow" />
      <${Action} label=${t("retry.group")} icon="retry" onClick=${() => askToRetry(group, reload)} />
      <${Action} label=${t("discard.group")} icon="cross" danger onClick=${() => askToDiscard(group, reload)} />
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

/** Return the ids of what is parked in a group now, at most DISCARDED_MAX: what fails with the same error later is not among them. */
async function idsOf(group) {
  const found = [];
  let cursor = null;
  do {
    const wanted = new URLSearchParams({ state: "PARKED", group: group.group, limit: PAGE, ...(cursor && { cursor }) });
    const page = await get(group.service, `/dead-letters?${wanted}`);
    found.push(...page.items.map((letter) => letter.id));
    cursor = page.nextCursor;
  } while (cursor && found.length < DISCARDED_MAX);
  return found.slice(0, DISCARDED_MAX);
}

async function askToDiscard(group, reload) {
  const ids = await idsOf(group);
  const { service } = group;
  ask({
    title: t("discard.title", { n: ids.length }),
    intro: t(group.letters > DISCARDED_MAX ? "discard.more" : "discard.intro", { n: DISCARDED_MAX }),
    fields: [{ name: "reason", label: t("field.reason"), required: true, maxlength: 500 }, byField()],
    preview: () => html`<strong>${t("discard.preview", { n: ids.length, service })}</strong><div class="small break">${group.error}</div>`,
    cli: ({ reason, by }) => `todoku dead list --service ${service} --group ${group.group} --limit ${DISCARDED_MAX} --json | jq -r .id | xargs -n1 ${command(["dead", "discard"], { service, reason: reason || "REASON", by })}`,
    confirm: t("discard.confirm", { n: ids.length }),
    danger: true,
    blocked: () => ids.length === 0,
    run: async ({ reason, by }, key) =>
      void doAll({
        ids,
        run: (id) => change("POST", service, `/dead-letters/${id}/discard`, { reason, by }, { key: `${key}-${id}` }),
        running: t("discard.running"),
        cli: `todoku dead list --service ${service} --state DISCARDED`,
        onDone: reload,
      }),
  });
}
