// Server-sent events (WHATWG HTML, section 9.2), read with fetch: an EventSource sends no Authorization.

/** Return a function that takes pieces of a stream and calls `receive({id, event, data})` for each event. */
export function makeParser(receive) {
  let rest = "";
  let fields = { id: undefined, event: "message", data: [] };
  let lastId;
  return function feed(piece) {
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (fields.id !== undefined) lastId = fields.id;
        if (fields.data.length || fields.id !== undefined) {
          receive({ id: lastId, event: fields.event, data: fields.data.length ? fields.data.join("\n") : null });
        }
        fields = { id: undefined, event: "message", data: [] };
      } else if (!line.startsWith(":")) {
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "data") fields.data.push(value);
        else if (name === "id" || name === "event") fields[name] = value;
      }
    }
  };
}

/** Read a response until it ends; `alive()` is called for whatever arrives, comments too. */
export async function readStream(response, receive, alive) {
  const feed = makeParser(receive);
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    feed(decoder.decode(value, { stream: true }));
  }
}

/** Return after how many milliseconds to connect again, after so many failures in a row. */
export const backoff = (failures) => Math.min(10_000, 500 * 2 ** Math.max(0, failures - 1));
