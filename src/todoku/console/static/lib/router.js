// Which page is shown follows from the address, and so do its filters.
import { computed, signal } from "./html.js";
import { base } from "./api.js";

const here = () => ({ path: location.pathname.slice(base.length).replace(/\/+$/, ""), search: location.search });

const place = signal(here());
addEventListener("popstate", () => (place.value = here()));

export const path = computed(() => place.value.path);
export const query = computed(() => new URLSearchParams(place.value.search));

export const href = (target) => base + target.replace(/^\//, "");

export function navigate(target, { replace = false } = {}) {
  const next = href(target);
  if (next === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", next);
  const before = place.value.path;
  place.value = here();
  if (before !== place.value.path) scrollTo(0, 0);
}

/** Set or remove parameters of the address. */
export function setQuery(changes, { replace = true } = {}) {
  const next = new URLSearchParams(place.value.search);
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const each of [value].flat()) if (each !== null && each !== undefined && each !== "") next.append(name, each);
  }
  const written = next.toString();
  navigate(path.value + (written ? `?${written}` : ""), { replace });
}

/** Follow links within the console without loading the page again. */
export function followLinks(root) {
  root.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || link.target || link.hasAttribute("download") || event.defaultPrevented) return;
    const url = new URL(link.href);
    if (url.origin !== location.origin || !url.pathname.startsWith(base) || url.hash) return;
    if (/^(api|session|static|problems)\//.test(url.pathname.slice(base.length))) return;
    event.preventDefault();
    navigate(url.pathname.slice(base.length) + url.search);
  });
}

/** Return the parameters of the first pattern that fits a path, and what belongs to it. */
export function match(patterns, current) {
  const given = current.split("/");
  for (const [pattern, value] of patterns) {
    const wanted = pattern.split("/");
    if (wanted.length !== given.length) continue;
    const found = {};
    const fits = wanted.every((part, index) => {
      if (!part.startsWith(":")) return part === given[index];
      found[part.slice(1)] = decodeURIComponent(given[index]);
      return given[index] !== "";
    });
    if (fits) return { value, parameters: found };
  }
  return null;
}
