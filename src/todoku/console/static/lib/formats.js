// Formatters of Intl, each made once: to make one takes as long as to format a hundred values.

const made = new Map();

/** Return the formatter of this kind (such as Intl.NumberFormat), for a locale, with these options. */
export function formatter(Kind, locale, options) {
  const key = `${Kind.name} ${locale} ${options === undefined ? "" : JSON.stringify(options)}`;
  let found = made.get(key);
  if (found === undefined) {
    found = new Kind(locale, options);
    made.set(key, found);
  }
  return found;
}
