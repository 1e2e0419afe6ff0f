// Messages that a service could not process, grouped by error.
import { html } from "../lib/html.js";
import { about, get } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { query, setQuery } from "../lib/router.js";
import { snapshot } from "../lib/snapshot.js";
import { Letter } from "../components/letter.js";
import { LetterGroup } from "../components/letter-group.js";
import { LetterTable } from "../components/letter-table.js";
import { Card, Cli, Empty, explain, Found, Head, Service } from "../components/parts.js";
import { Icon } from "../components/icons.js";

const LETTERS = 100;
const STATES = ["PARKED", "RETRIED", "EDITED", "DISCARDED"];

/** Ask every service; one that does not answer does not hide what the others tell. One that is known not to respond is not waited for. */
export async function ofAll(services, load) {
  const answers = await Promise.allSettled(
    services.map((service) => {
      const { error } = snapshot.peek().services[service] ?? {};
      return error?.slug === "service-unanswered" ? Promise.reject(error) : load(service);
    }),
  );
  const failed = answers.map((each, index) => [services[index], each.reason]).filter(([, reason]) => reason);
  if (failed.length === services.length) throw failed[0][1];
  return { found: answers.flatMap((each, index) => (each.status === "fulfilled" ? [[services[index], each.value]] : [])), failed };
}

export function DeadLetters() {
  const chosen = query.value.get("service");
  const state = query.value.get("state") ?? "PARKED";
  const letter = query.value.get("letter");
  const services = chosen ? [chosen] : about.value.services;
  return html`<${Head} title=${t("page.dead-letters")} lead=${t("letters.lead")} />
    <div class="stack">
      ${letter && chosen && html`<${Letter} service=${chosen} id=${letter} />`}
      <div class="filters">
        <div class="filters" role="group" aria-label=${t("letters.state")}>${STATES.map((each) => html`<button type="button" class="chip" key=${each} aria-pressed=${each === state} onClick=${() => setQuery({ state: each === "PARKED" ? null : each, letter: null }, { replace: false })}>${t(`status.${each}`)}</button>`)}</div>
        <select aria-label=${t("service")} onChange=${(event) => setQuery({ service: event.target.value, letter: null })}><option value="">${t("events.allServices")}</option>${about.value.services.map((name) => html`<option key=${name} value=${name} selected=${chosen === name}>${name}</option>`)}</select>
      </div>
      ${state === "PARKED" ? html`<${Groups} services=${services} />` : html`<${Closed} services=${services} state=${state} />`}
      <${Cli} command="todoku dead list" />
    </div>`;
}

export const Unreachable = ({ failed }) => failed.map(([service, error]) => html`<div class="body" key=${service}><div class="notice warn"><${Icon} name="warn" /><div class="grow"><${Service} name=${service} />: ${explain(error)}</div></div></div>`);

function Groups({ services }) {
  const state = usePolled((abort) => ofAll(services, (service) => get(service, "/dead-letters/groups", abort)), { key: services.join() });
  return html`<${Card}><${Found} state=${state}>${({ found, failed }) => {
    const groups = found.flatMap(([service, { items }]) => items.map((group) => ({ service, ...group })));
    return html`<${Unreachable} failed=${failed} />${groups.length === 0 && !failed.length && html`<${Empty} icon="check" title=${t("letters.none")}>${t("letters.none.hint")}<//>`}${groups.map((group) => html`<${LetterGroup} key=${group.service + group.group} group=${group} reload=${state.reload} />`)}`;
  }}<//><//>`;
}

function Closed({ services, state: wanted }) {
  const state = usePolled((abort) => ofAll(services, (service) => get(service, `/dead-letters?state=${wanted}&limit=${LETTERS}`, abort)), { key: services.join() + wanted });
  return html`<${Card}><${Found} state=${state}>${({ found, failed }) => {
    const letters = found.flatMap(([service, { items }]) => items.map((each) => ({ service, ...each })));
    return html`<${Unreachable} failed=${failed} />${letters.length ? html`<${LetterTable} letters=${letters} />` : !failed.length && html`<${Empty} icon="letters" title=${t("letters.none.state")} />`}`;
  }}<//><//>`;
}
