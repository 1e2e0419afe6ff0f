// What all services tell of themselves: their metrics and clocks, asked for together and kept for an hour.
import { effect, signal } from "./html.js";
import { about, get, getText } from "./api.js";
import { buckets, parse, sum, value } from "./metrics.js";

const EVERY_MILLISECONDS = 5000;
const KEPT_MAX = 720;

/** `{services: {name: {metrics, error, aheadSeconds, at}}}` */
export const snapshot = signal({ services: {} });
/** What was seen in the last hour, the oldest first. */
export const history = signal([]);

async function ask(service) {
  const sent = Date.now();
  try {
    const text = await getText(service, "/metrics");
    const metrics = parse(text);
    const clock = value(metrics, "todoku_clock_time_seconds");
    // The clock was read between the request and the answer: only what is beyond that is a difference.
    const nearest = clock === null ? null : Math.min(Math.max(clock * 1000, sent), Date.now());
    return { metrics, error: null, at: Date.now(), aheadSeconds: clock === null ? null : clock - nearest / 1000 };
  } catch (error) {
    return { metrics: null, error, at: Date.now(), aheadSeconds: null };
  }
}

/** Return what the overview draws as lines. */
export function sample(services) {
  const orders = services.orders?.metrics;
  const ended = (status) => sum(orders, "todoku_order_duration_seconds_count", (labels) => labels.status === status);
  const all = Object.values(services).map((each) => each.metrics);
  return {
    at: Date.now(),
    accepted: orders ? sum(orders, "todoku_orders_accepted_total") : null,
    completed: ended("COMPLETED"),
    ended: sum(orders, "todoku_order_duration_seconds_count"),
    compensated: ended("SHIPMENT_FAILED") + ended("CANCELLED"),
    open: sum(orders, "todoku_orders_open"),
    durations: buckets(orders, "todoku_order_duration_seconds"),
    letters: all.reduce((total, each) => total + (value(each, "todoku_dead_letters_parked") ?? 0), 0),
    outboxSeconds: Math.max(0, ...all.flatMap((each) => (each?.get("todoku_outbox_oldest_pending_seconds") ?? []).map((found) => found.value))),
  };
}

export async function refresh() {
  const names = about.peek().services;
  const states = await Promise.all(names.map(ask));
  const services = Object.fromEntries(names.map((name, index) => [name, states[index]]));
  snapshot.value = { services };
  history.value = [...history.peek(), sample(services)].slice(-KEPT_MAX);
}

/** Ask again and again while the tab is visible. */
export function begin() {
  let timer;
  const loop = async () => {
    clearTimeout(timer);
    if (!document.hidden) await refresh();
    timer = setTimeout(loop, EVERY_MILLISECONDS);
  };
  document.addEventListener("visibilitychange", () => !document.hidden && loop());
  let asked = "";
  effect(() => {
    const names = about.value.services.join();
    if (names !== asked) {
      asked = names;
      loop();
    }
  });
}

export const readiness = (service) => get(service, "/readyz");
