// Texts by key, in the language of the reader.
import en from "../messages/en.js";
import ja from "../messages/ja.js";
import { formatter } from "./formats.js";
import { language } from "./prefs.js";

export const CATALOGUES = { en, ja };

/** Return the text of a key; `{name}` is replaced by the value of that name. A text may depend on `n`. */
export function text(catalogue, locale, key, values = {}) {
  let found = catalogue[key] ?? en[key];
  if (found === undefined) return key;
  if (typeof found === "object") {
    found = found[formatter(Intl.PluralRules, locale).select(values.n ?? 0)] ?? found.other;
  }
  return found.replace(/\{(\w+)\}/g, (whole, name) =>
    values[name] === undefined ? whole : typeof values[name] === "number" ? number(values[name]) : String(values[name]),
  );
}

export const t = (key, values) => text(CATALOGUES[language.value], language.value, key, values);

/** Return whether there is a text for a key. */
export const has = (key) => key in en;

export function number(value, options) {
  return formatter(Intl.NumberFormat, language.value, options).format(value);
}

export function percent(share) {
  return number(share, { style: "percent", maximumFractionDigits: share > 0.99 && share < 1 ? 2 : 1 });
}

export function money(minorUnits, currency) {
  try {
    const format = formatter(Intl.NumberFormat, language.value, { style: "currency", currency, currencyDisplay: "narrowSymbol" });
    return format.format(minorUnits / 10 ** format.resolvedOptions().maximumFractionDigits);
  } catch {
    return `${number(minorUnits)} ${currency}`;
  }
}

export function items(list) {
  const named = list.slice(0, 8).map((item) => `${item.productId} ×${number(item.quantity)}`);
  const more = list.length > 8 ? [t("items.more", { n: list.length - 8 })] : [];
  return [...named, ...more].join(language.value === "ja" ? "、" : ", ");
}
