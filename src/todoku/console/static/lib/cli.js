// The command that does the same.

/** Return a word as a POSIX shell reads it. */
export const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${String(word).replaceAll("'", `'\\''`)}'`);

/** Return a command: words, and options by name; those without a value are left out. */
export function command(words, options = {}) {
  const given = Object.entries(options)
    .filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false)
    .map(([name, value]) => (value === true ? `--${name}` : `--${name} ${quote(String(value))}`));
  return ["todoku", ...words.map((word) => quote(String(word))), ...given].join(" ");
}

/** Return the curl command of a request to a service. */
export function curl(method, url, body) {
  const data = body === undefined ? "" : ` -H 'content-type: application/json' -d ${quote(JSON.stringify(body))}`;
  return `curl -s${method === "GET" ? "" : ` -X ${method}`} ${quote(url)}${data}`;
}
