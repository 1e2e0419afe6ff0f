// Log in by a key or at the issuer, where the services want to know who the reader is; and log out.
import { html, useState } from "../lib/html.js";
import { base, logIn, logOut, needsLogin, session } from "../lib/api.js";
import { has, t } from "../lib/i18n.js";
import { reconnect } from "../lib/live.js";
import { path, query, setQuery } from "../lib/router.js";
import { refresh } from "../lib/snapshot.js";
import { Icon } from "./icons.js";

const again = () => (reconnect(), refresh());

export function Login() {
  const [key, setKey] = useState("");
  const [failure, setFailure] = useState(null);
  if (!needsLogin.value) return null;
  const submit = async (event) => {
    event.preventDefault();
    setKey("");
    try {
      const isKept = await logIn(key.trim());
      setFailure(isKept ? null : "cookie");
      needsLogin.value = !isKept;
      if (query.peek().has("login")) setQuery({ login: null });
      if (isKept) again();
    } catch (problem) {
      setFailure(problem.status === 401 ? "key" : "service");
    }
  };
  const code = failure ?? query.value.get("login");
  const text = code ? t(has(`login.failed.${code}`) ? `login.failed.${code}` : "login.failed.token") : t("login.wanted");
  const here = path.value + location.search.replace(/([?&])login=[^&]*&?/, "$1").replace(/[?&]$/, "");
  return html`<form class="notice warn" onSubmit=${submit} aria-label=${t("login")}>
    <${Icon} name="info" />
    <div class="grow"><p role="status">${text}</p><div class="row">
      ${session.value.issuer && html`<a class="button primary" href=${`${base}session/login?to=${encodeURIComponent(here)}`}>${t("login.issuer")}</a>`}
      <label for="login-key">${t("login.key")}</label>
      <input id="login-key" type="password" required autocomplete="off" value=${key} onInput=${(event) => setKey(event.target.value)} />
      <button type="submit" class=${`button ${session.value.issuer ? "" : "primary"}`}>${t("login")}</button></div></div>
  </form>`;
}

export function LoggedIn() {
  const { actor } = session.value;
  if (!actor) return null;
  const leave = async () => {
    await logOut();
    needsLogin.value = true;
    again();
  };
  return html`<div class="field"><span class="label">${t("login.actor")}</span><div class="row"><strong>${actor}</strong>
    <button type="button" class="button" onClick=${leave}>${t("logout")}</button></div></div>`;
}
