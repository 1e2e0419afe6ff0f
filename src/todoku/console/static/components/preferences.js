// Language, colours, time zone.
import { html, signal } from "../lib/html.js";
import { session } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { language, theme, who, zone } from "../lib/prefs.js";
import { zoneName } from "../lib/time.js";
import { Icon } from "./icons.js";
import { LoggedIn } from "./login.js";
import { Modal } from "./modal.js";

const shown = signal(false);

export function Preferences() {
  return html`<button type="button" class="button ghost" lang=${language.value === "ja" ? "en" : "ja"} onClick=${() => (language.value = language.value === "ja" ? "en" : "ja")}>${language.value === "ja" ? "English" : "日本語"}</button>
    <button type="button" class="button ghost" aria-label=${t("prefs")} title=${t("prefs")} onClick=${() => (shown.value = true)}><${Icon} name="settings" size=${18} /></button>
    ${shown.value && html`<${Sheet} />`}`;
}

function close() {
  shown.value = false;
}

function Sheet() {
  return html`<${Modal} label="prefs-title" onClose=${close}><div class="sheet">
    <h2 id="prefs-title">${t("prefs")}</h2>
    <${LoggedIn} />
    <${Choice} label=${t("prefs.language")} chosen=${language} options=${[["en", "English"], ["ja", "日本語"]]} />
    <${Choice} label=${t("prefs.theme")} chosen=${theme} options=${["system", "light", "dark"].map((each) => [each, t(`prefs.theme.${each}`)])} />
    <${Choice} label=${t("prefs.zone")} chosen=${zone} options=${[["local", Intl.DateTimeFormat().resolvedOptions().timeZone], ["UTC", "UTC"]]} />
    ${!session.value.actor && html`<div class="field"><label for="prefs-who">${t("field.by")}</label><input id="prefs-who" value=${who.value} autocomplete="off" onInput=${(event) => (who.value = event.target.value)} /><div class="hint">${t("field.by.hint")}</div></div>`}
    <p class="quiet small">${t("prefs.note", { zone: zoneName() })}</p>
    <div class="buttons"><button type="button" class="button primary" onClick=${close}>${t("close")}</button></div>
  </div><//>`;
}

const Choice = ({ label, chosen, options }) => html`<div class="field" role="group" aria-label=${label}><span class="label">${label}</span><div class="row">${options.map(
  ([value, name]) => html`<button type="button" class="chip" key=${value} aria-pressed=${chosen.value === value} onClick=${() => (chosen.value = value)}>${name}</button>`,
)}</div></div>`;
