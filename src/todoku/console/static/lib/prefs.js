// What the reader prefers. Nothing secret is kept, so it may stay in the browser.
import { effect, signal } from "./html.js";

const KEY = "todoku.preferences";

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // Storage may be off, or hold something else.
  }
}

const first = stored();
const browserLanguage = (navigator.language ?? "en").startsWith("ja") ? "ja" : "en";

/** "ja" or "en". */
export const language = signal(["ja", "en"].includes(first.language) ? first.language : browserLanguage);
/** "system", "light" or "dark". */
export const theme = signal(["light", "dark"].includes(first.theme) ? first.theme : "system");
/** "local" or "UTC". */
export const zone = signal(first.zone === "UTC" ? "UTC" : "local");
/** Who decides, as it is written into pauses and dead letters. */
export const who = signal(typeof first.who === "string" ? first.who : "");

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const dark = signal(systemIsDark.matches);
systemIsDark.addEventListener("change", (event) => {
  dark.value = event.matches;
});

effect(() => {
  document.documentElement.dataset.theme =
    theme.value === "system" ? (dark.value ? "dark" : "light") : theme.value;
});

effect(() => {
  const chosen = { language: language.value, theme: theme.value, zone: zone.value, who: who.value };
  document.documentElement.lang = chosen.language;
  try {
    localStorage.setItem(KEY, JSON.stringify(chosen));
  } catch {
    // It is chosen until the tab is closed.
  }
});
