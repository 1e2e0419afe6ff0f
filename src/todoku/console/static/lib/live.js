// What happens to orders, as it happens: one stream for the whole tab, closed while nobody looks.
import { batch, signal } from "./html.js";
import { address, problemOf, requestHeaders } from "./api.js";
import { backoff, readStream } from "./sse.js";

export const KEPT_MAX = 1000;
const BETWEEN_MILLISECONDS = 100;
const STALE_MILLISECONDS = 20_000; // A comment comes every 15 s.

/** "connecting", "live", "paused", "reconnecting" or "stale". */
export const connection = signal("connecting");
/** The last events, the newest first, at most KEPT_MAX. */
export const events = signal([]);
/** How many events have come since the page was opened. */
export const received = signal(0);
/** How often each type of event has come since the page was opened. */
export const countsByType = signal(new Map());
/** When the stream began. */
export const openedAt = signal(Date.now());

const listeners = new Set();
let pausedByReader = false;
let running = null;
let after = null;
let heardAt = Date.now();
let pending = [];
let isPlanned = false;
let flushedAt = -BETWEEN_MILLISECONDS;

/** Call `listener(events)` for what is new: in the next frame, but at most ten times a second, which is as often as
    anybody can read it. Returns what ends it. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function pause() {
  pausedByReader = true;
  stop("paused");
}

export function resume() {
  pausedByReader = false;
  start();
}

export const isPaused = () => pausedByReader;

function plan() {
  if (isPlanned) return;
  isPlanned = true;
  const wait = flushedAt + BETWEEN_MILLISECONDS - performance.now();
  if (wait > 0) setTimeout(() => requestAnimationFrame(flush), wait);
  else requestAnimationFrame(flush);
}

function flush() {
  isPlanned = false;
  flushedAt = performance.now();
  const fresh = pending;
  pending = [];
  const counts = new Map(countsByType.peek());
  for (const event of fresh) counts.set(event.type, (counts.get(event.type) ?? 0) + 1);
  batch(() => {
    events.value = [...fresh.slice(-KEPT_MAX).reverse(), ...events.peek()].slice(0, KEPT_MAX);
    received.value += fresh.length;
    countsByType.value = counts;
    for (const listener of listeners) listener(fresh);
  });
}

function receive({ id, event, data }) {
  if (event === "restarted") {
    after = null; // The database was restored: begin at its end.
    return;
  }
  if (id) after = id;
  if (data === null) return;
  pending.push(JSON.parse(data));
  plan();
}

async function follow(abort) {
  let failures = 0;
  while (!abort.aborted) {
    try {
      const headers = requestHeaders({ Accept: "text/event-stream", ...(after ? { "Last-Event-ID": after } : {}) });
      const response = await fetch(address("orders", "/orders/stream"), { headers, signal: abort, cache: "no-store" });
      if (!response.ok) {
        if (response.status === 410) after = null;
        throw await problemOf(response);
      }
      failures = 0;
      heardAt = Date.now();
      connection.value = "live";
      await readStream(response, receive, () => {
        heardAt = Date.now();
        if (connection.peek() === "stale") connection.value = "live";
      });
    } catch {
      if (abort.aborted) return;
    }
    failures += 1;
    connection.value = "reconnecting";
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, backoff(failures));
      abort.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }
}

function start() {
  if (running || pausedByReader || document.hidden) return;
  running = new AbortController();
  if (connection.peek() !== "live") connection.value = "connecting";
  follow(running.signal);
}

function stop(state) {
  running?.abort();
  running = null;
  connection.value = state;
}

/** Begin, and go with the visibility of the tab. */
export function begin() {
  openedAt.value = Date.now();
  document.addEventListener("visibilitychange", () => (document.hidden ? stop("paused") : start()));
  addEventListener("pagehide", () => stop("paused"));
  addEventListener("pageshow", start);
  setInterval(() => {
    if (connection.peek() === "live" && Date.now() - heardAt > STALE_MILLISECONDS) connection.value = "stale";
  }, 1000);
  start();
}

/** Connect again, with other rights. */
export function reconnect() {
  stop("connecting");
  start();
}
