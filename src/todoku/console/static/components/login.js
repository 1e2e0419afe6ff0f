// The reader's key, where the services want one. It stays in the memory of this tab.
import { html, useState } from "../lib/html.js";
import { credential, needsLogin } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { reconnect } from "../lib/live.js";
import { refresh } from "../lib/snapshot.js";
import { Icon } from "./icons.js";

export function Login() {
  const [key, setKey] = useState("");
  if (!needsLogin.value) return null;
  const submit = (event) => {
    event.preventDefault();
    credential.value = key.trim();
    needsLogin.value = false;
    setKey("");
    reconnect();
    refresh();
  };
  return html`<form class="notice warn" onSubmit=${submit} aria-label=${t("login")}>
    <${Icon} name="info" />
    <div class="grow row"><label for="login-key">${t(credential.value ? "login.refused" : "login.wanted")}</label>
      <input id="login-key" type="password" required autocomplete="off" value=${key} onInput=${(event) => setKey(event.target.value)} />
      <button type="submit" class="button primary">${t("login")}</button></div>
  </form>`;
}
