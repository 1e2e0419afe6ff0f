// The frame around every page.
import { html, signal, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { about, base } from "../lib/api.js";
import { has, t } from "../lib/i18n.js";
import { helpShown } from "../lib/keys.js";
import { href, match, navigate, path } from "../lib/router.js";
import { problems, snapshot } from "../lib/snapshot.js";
import { sum } from "../lib/metrics.js";
import { NAVIGATION, PAGES } from "../pages/index.js";
import { Progress } from "./bulk.js";
import { Connection } from "./connection.js";
import { Dialogs } from "./dialog.js";
import { Help } from "./help.js";
import { Icon } from "./icons.js";
import { Login } from "./login.js";
import { Empty } from "./parts.js";
import { Preferences } from "./preferences.js";
import { Toasts } from "./toasts.js";

const menuOpen = signal(false);

export function Shell() {
  const main = useRef(null);
  const first = useRef(true);
  const found = match(PAGES, path.value);
  const page = path.value.split("/")[0];
  // Before the page is drawn: who presses a key at what is seen there, presses it there.
  useLayoutEffect(() => {
    menuOpen.value = false;
    document.title = `${pageName(page)} · Todoku`;
    if (!first.current) main.current?.focus({ preventScroll: true });
    first.current = false;
  }, [path.value]);
  const Page = found?.value;
  return html`<div class="shell">
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>${t("skip")}</a>
    <${Navigation} page=${page} />
    ${menuOpen.value && html`<button type="button" class="scrim" aria-label=${t("close")} onClick=${() => (menuOpen.value = false)} />`}
    <div class="right">
      <header class="top">
        <button type="button" class="button ghost menu-button" aria-label=${t("menu")} aria-expanded=${menuOpen.value} onClick=${() => (menuOpen.value = !menuOpen.value)}><${Icon} name="menu" size=${20} /></button>
        <${Finder} />
        <div class="space" />
        <${Connection} />
        <${Preferences} />
      </header>
      <main id="main" tabindex="-1" ref=${main} key=${path.value}>
        <${Login} />
        ${Page ? html`<${Page} ...${found.parameters} />` : html`<${Empty} icon="search" title=${t("page.unknown")}><a href=${href("")}>${t("page.overview")}</a><//>`}
      </main>
    </div>
    <${Dialogs} /><${Progress} /><${Help} open=${helpShown} /><${Toasts} />
  </div>`;
}

const pageName = (page) => t(has(`page.${page || "overview"}`) ? `page.${page || "overview"}` : "page.overview");

function counts() {
  const all = Object.values(snapshot.value.services).map((each) => each.metrics);
  const total = (name) => all.reduce((so, each) => so + sum(each, name), 0);
  return {
    "": [problems.value.length, problems.value[0]?.level],
    "dead-letters": [total("todoku_dead_letters_parked"), "bad"],
    pauses: [total("todoku_pauses") + sum(snapshot.value.services.orders?.metrics, "todoku_orders_held"), "warn"],
  };
}

function Navigation({ page }) {
  const shown = counts();
  return html`<nav class=${`nav ${menuOpen.value ? "open" : ""}`} aria-label=${t("nav")}>
    <a class="brand" href=${href("")}><img src=${`${base}static/icon.svg`} alt="" width="24" height="24" />Todoku <small lang="ja">届く</small></a>
    ${NAVIGATION.map(([name, icon, gap]) => {
      const [count, level] = shown[name] ?? [0];
      return html`${gap && html`<div class="group" key=${`${name}-gap`} />`}<a class="item" key=${name} href=${href(name)} aria-current=${page === name ? "page" : undefined}>
        <${Icon} name=${icon} size=${17} />${pageName(name)}${count > 0 && html`<span class=${`count ${level}`}>${count}</span>`}
      </a>`;
    })}
    <div class="foot">${about.value.version && `Todoku ${about.value.version}`}</div>
  </nav>`;
}

function Finder() {
  const [text, setText] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (text.trim()) navigate(`search?q=${encodeURIComponent(text.trim())}`);
  };
  return html`<form class="find" role="search" onSubmit=${submit}>
    <${Icon} name="search" /><input id="search" type="search" value=${text} onInput=${(event) => setText(event.target.value)} placeholder=${t("search.placeholder")} aria-label=${t("search.placeholder")} autocomplete="off" spellcheck="false" /><kbd aria-hidden="true">/</kbd>
  </form>`;
}
