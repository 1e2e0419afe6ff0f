// Pause and resume.
import { html } from "../lib/html.js";
import { about, change } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { ask, byField } from "./dialog.js";

/** Return the command's word for a target of a service, and its options. */
export function pauseWords(service, target) {
  if (target.startsWith("product:")) return [[], { product: target.slice("product:".length) }];
  return [[target === "service" ? service : target], {}];
}

const targets = () => [...about.value.services.map((name) => ({ value: `${name} service`, label: name })), { value: "shipping carrier", label: t("pause.carrier") }];

export function askToPause(service, target, reload = () => {}) {
  const fixed = service && target;
  const chosen = (values) => (fixed ? [service, target] : values.what.split(" "));
  ask({
    title: fixed ? t("pause.title.product", { target: target.split(":")[1] }) : t("pause.title"),
    intro: t("pause.intro"),
    fields: [...(fixed ? [] : [{ name: "what", label: t("pauses.what"), value: "shipping carrier", required: true, options: targets() }]), { name: "reason", label: t("field.reason"), required: true, maxlength: 500 }, byField()],
    cli: (values) => {
      const [words, options] = pauseWords(...chosen(values));
      return command(["pause", ...words], { ...options, reason: values.reason || "REASON", by: values.by });
    },
    confirm: t("pause.confirm"),
    danger: true,
    run: async (values, key) => {
      const [name, what] = chosen(values);
      return { service: name, ...(await change("POST", name, "/pauses", { target: what, reason: values.reason, by: values.by }, { key })) };
    },
    done: (pause) => {
      reload();
      return { text: t("pause.done"), undo: () => askToResume(pause, reload) };
    },
  });
}

export function askToResume(pause, reload) {
  const [words, options] = pauseWords(pause.service, pause.target);
  ask({
    title: t("resume.title"),
    intro: html`${t("resume.intro")} ${pause.reason}`,
    fields: [{ name: "rate", label: t("resume.rate"), type: "number", min: 1, max: 1000, hint: t("resume.rate.hint") }, byField()],
    cli: ({ rate, by }) => command(["resume", ...words], { ...options, rate, by }),
    confirm: t("resume.button"),
    run: ({ rate, by }, key) => change("POST", pause.service, `/pauses/${pause.id}/resume`, { by, ...(rate ? { rate: Number(rate) } : {}) }, { key }),
    done: () => {
      reload();
      return t("resume.done");
    },
  });
}
