// What the keys do, wherever no text is being typed.
import { signal } from "./html.js";
import { navigate } from "./router.js";

export const helpShown = signal(false);

const isTyping = (target) => target.closest?.("input, textarea, select, [contenteditable]");
const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);

const GO = { o: "orders", h: "", e: "events", d: "dead-letters", s: "stock", b: "subscribers", p: "pauses", m: "saga", y: "system" };
let afterG = 0;

function move(step) {
  const all = rows();
  if (!all.length) return;
  const current = all.findIndex((row) => row.contains(document.activeElement));
  const next = all[Math.min(all.length - 1, Math.max(0, current + step))];
  (next.matches("a, button, [tabindex]") ? next : next.querySelector("a, button, [tabindex]"))?.focus();
  next.scrollIntoView({ block: "nearest" });
}

export function handleKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return; // A dialog handles its own keys.
    if (event.key === "Escape") {
      document.activeElement?.blur?.();
      return;
    }
    if (isTyping(event.target)) return;
    if (Date.now() - afterG < 1500 && event.key in GO) {
      afterG = 0;
      navigate(GO[event.key]);
      event.preventDefault();
      return;
    }
    const action = {
      "/": () => document.getElementById("search")?.focus(),
      j: () => move(1),
      k: () => move(-1),
      g: () => (afterG = Date.now()),
      "?": () => (helpShown.value = true),
    }[event.key];
    if (!action) return;
    action();
    event.preventDefault();
  });
}
