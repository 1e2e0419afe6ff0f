// A dialog for an action: what it does, its fields, a preview, the command that does the same.
import { html, signal, useState } from "../lib/html.js";
import { newKey, session } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { who } from "../lib/prefs.js";
import { Cli, explain } from "./parts.js";
import { Icon } from "./icons.js";
import { Modal } from "./modal.js";
import { say } from "./toasts.js";

const open = signal(null);

/** Ask for what an action needs, and do it.
 *
 * `fields`: `{name, label, value, type, required, hint, options}`. `preview(values)`, `cli(values)` and
 * `run(values, key)` get what was typed; `conflict(error, values)` may return another dialog for an error.
 * `done(result, values)` returns the toast: a text, or `{text, undo, link}`. */
export function ask(action) {
  open.value = { ...action, key: newKey() };
}

export const byField = () => ({ name: "by", label: t("field.by"), value: who.value, required: true, hint: t("field.by.hint") });

export const Dialogs = () => open.value && html`<${Dialog} action=${open.value} key=${open.value.key} />`;

function close() {
  open.value = null;
}

function Dialog({ action }) {
  // Whoever is logged in decides: no other name is asked for, and the services would refuse one.
  const fields = (action.fields ?? []).filter((field) => field.name !== "by" || !session.value.actor);
  const [values, setValues] = useState(() => Object.fromEntries(fields.map((field) => [field.name, field.value ?? ""])));
  const [state, setState] = useState({ busy: false, error: null });

  async function submit(event) {
    event.preventDefault();
    if (state.busy) return;
    setState({ busy: true, error: null });
    if (values.by) who.value = values.by;
    try {
      const result = await action.run(values, action.key);
      const told = action.done?.(result, values);
      close();
      if (told) say(told.text ?? told, told.text ? told : {});
    } catch (error) {
      const other = await action.conflict?.(error, values);
      if (other) ask(other);
      else setState({ busy: false, error });
    }
  }

  return html`<${Modal} label="dialog-title" onClose=${close}>
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${action.title}</h2>
      ${action.intro && html`<p class="quiet">${action.intro}</p>`}
      ${fields.map((field) => html`<${Field} field=${field} key=${field.name} value=${values[field.name]} set=${(value) => setValues({ ...values, [field.name]: value })} />`)}
      ${action.preview && html`<div class="preview" role="status">${action.preview(values)}</div>`}
      ${action.cli && html`<${Cli} command=${action.cli(values)} />`}
      ${state.error && html`<div class="notice bad" role="alert"><${Icon} name="warn" /><div class="grow break">${explain(state.error)}${
        state.error.errors.map((each) => html`<div class="small">${each.pointer ?? each.parameter ?? ""} ${each.detail ?? ""}</div>`)
      }</div></div>`}
      <div class="buttons">
        <button type="button" class="button" onClick=${close}>${t("cancel")}</button>
        <button type="submit" class=${`button primary ${action.danger ? "danger" : ""}`} disabled=${state.busy || action.blocked?.(values)}>${state.busy ? t("busy") : action.confirm}</button>
      </div>
    </form>
  <//>`;
}

function Field({ field, value, set }) {
  const id = `field-${field.name}`;
  const common = { id, name: field.name, required: field.required, value, "aria-describedby": field.hint ? `${id}-hint` : undefined, onInput: (event) => set(event.target.value) };
  return html`<div class="field">
    <label for=${id}>${field.label}${!field.required && html` <span class="quiet small">${t("optional")}</span>`}</label>
    ${
      field.options
        ? html`<select ...${common}>${field.options.map(({ value: each, label }) => html`<option value=${each} selected=${each === value}>${label}</option>`)}</select>`
        : field.type === "json"
          ? html`<textarea ...${common} spellcheck="false" rows="12" />`
          : html`<input ...${common} type=${field.type ?? "text"} min=${field.min} max=${field.max} step=${field.step} maxlength=${field.maxlength} autocomplete="off" list=${field.suggestions ? `${id}-list` : undefined} />`
    }
    ${field.suggestions && html`<datalist id=${`${id}-list`}>${field.suggestions.map((each) => html`<option value=${each} />`)}</datalist>`}
    ${field.hint && html`<div class="hint" id=${`${id}-hint`}>${field.hint}</div>`}
  </div>`;
}
