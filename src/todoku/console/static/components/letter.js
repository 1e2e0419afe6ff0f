// One dead letter: its message, its attempts, and what can be done.
import { html } from "../lib/html.js";
import { change, get } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { usePolled } from "../lib/poll.js";
import { setQuery } from "../lib/router.js";
import { ask, byField } from "./dialog.js";
import { Action, Card, Found, Json, OrderLink, Service, Status, When } from "./parts.js";

export function Letter({ service, id }) {
  const state = usePolled((abort) => get(service, `/dead-letters/${id}`, abort), { key: service + id });
  return html`<${Card} title=${t("letter")} aside=${html`<${Action} label=${t("close")} icon="cross" onClick=${() => setQuery({ letter: null })} />`}><${Found} state=${state}>${(letter) => html`<${Shown} service=${service} letter=${letter} reload=${state.reload} />`}<//><//>`;
}

function Shown({ service, letter, reload }) {
  const why = letter.state === "PARKED" ? "" : t("letter.closed");
  const subject = { service, letter, reload };
  return html`<div class="body stack">
    <div class="row"><${Status} value=${letter.state} /><${Service} name=${service} /><span>${letter.eventType ?? "–"}</span><span class="grow" />
      <${Action} label=${t("letter.retry")} icon="retry" why=${why} onClick=${() => askToRetryOne(subject)} />
      <${Action} label=${t("letter.edit")} icon="check" why=${why || (letter.body?.data ? "" : t("letter.notJson"))} onClick=${() => askToEdit(subject)} />
      <${Action} label=${t("letter.discard")} icon="cross" danger why=${why} onClick=${() => askToDiscard(subject)} />
    </div>
    <code class="bad break">${letter.error}</code>
    <dl class="facts">
      <dt>${t("order")}</dt><dd><${OrderLink} id=${letter.orderId} /></dd>
      <dt>${t("letter.subject")}</dt><dd class="mono">${letter.subject}</dd>
      <dt>${t("event.id")}</dt><dd class="id">${letter.eventId ?? "–"}</dd>
      <dt>${t("letter.parked")}</dt><dd><${When} at=${letter.parkedAt} /></dd>
      ${letter.closedAt && html`<dt>${t("letter.closedAt")}</dt><dd><${When} at=${letter.closedAt} /> ${letter.closedBy ?? ""} ${letter.reason ?? ""}</dd>`}
    </dl>
    <details><summary>${t("letter.history", { n: letter.attempts })}</summary><ul>${letter.history.map((each) => html`<li key=${each.at}><${When} at=${each.at} /> ${each.askedBy ?? ""} <code class="break">${each.error ?? t("letter.succeeded")}</code></li>`)}</ul></details>
    <details open><summary>${t("letter.message")}</summary><${Json} value=${letter.body ?? letter.bodyBase64} /></details>
    ${letter.traceback && html`<details><summary>${t("letter.traceback")}</summary><pre tabindex="0">${letter.traceback}</pre></details>`}
  </div>`;
}

const path = (letter, what) => `/dead-letters/${letter.id}/${what}`;

function askToRetryOne({ service, letter, reload }) {
  ask({
    title: t("letter.retry.title"),
    intro: t("letter.retry.intro"),
    fields: [byField()],
    cli: ({ by }) => command(["dead", "retry", letter.id], { service, by }),
    confirm: t("letter.retry"),
    run: ({ by }, key) => change("POST", service, path(letter, "retry"), { by }, { key }).finally(reload),
    done: () => t("letter.retry.done"),
  });
}

function askToEdit({ service, letter, reload }) {
  ask({
    title: t("letter.edit.title"),
    intro: t("letter.edit.intro"),
    fields: [{ name: "data", label: t("letter.data"), type: "json", required: true, value: JSON.stringify(letter.body.data, null, 2) }, byField()],
    cli: ({ by }) => command(["dead", "edit", letter.id], { service, by }),
    confirm: t("letter.edit.confirm"),
    run: async ({ data, by }, key) => change("POST", service, path(letter, "edit"), { data: JSON.parse(data), by }, { key }),
    conflict: (error) => {
      if (error instanceof SyntaxError) error.errors = [];
      return null;
    },
    done: (next) => {
      setQuery({ letter: next.id });
      return t("letter.edit.done");
    },
  });
}

function askToDiscard({ service, letter, reload }) {
  ask({
    title: t("letter.discard.title"),
    intro: t("letter.discard.intro"),
    fields: [{ name: "reason", label: t("field.reason"), required: true, maxlength: 500 }, byField()],
    cli: ({ reason, by }) => command(["dead", "discard", letter.id], { service, reason: reason || "REASON", by }),
    confirm: t("letter.discard"),
    danger: true,
    run: ({ reason, by }, key) => change("POST", service, path(letter, "discard"), { reason, by }, { key }),
    done: () => {
      reload();
      return t("letter.discard.done");
    },
  });
}
