// What all services tell of themselves: their metrics and clocks, asked for together and kept for an hour.
import { effect, signal } from "./html.js";
import { about, get, getText } from "./api.js";
import { findProblems, noticed } from "./attention.js";
import { largest, buckets, parse, sum, value } from "./metrics.js";

const EVERY_MILLISECONDS = 5000;
const ANSWER_SECONDS_MAX = 4;
const KEPT_MAX = 720;
const CALL_WINDOWS = [20_000, 60_000];
const STOCK_SECONDS_MAX = 10;
const ORDERS_MAX = 100;

/** `{services: {name: {metrics, error, aheadSeconds, at, lastAt}}, details, callSeconds, at}`; `lastAt` is when a service
 * answered last, `details` what metrics do not tell, `callSeconds` how long calls to the carrier took in the last minute. */
export const snapshot = signal({ services: {} });
/** What was seen in the last hour, the oldest first. */
export const history = signal([]);
/** What needs a person: see `findProblems`. */
export const problems = signal([]);

async function ask(service) {
  const sent = Date.now();
  try {
    const text = await getText(service, "/metrics", { secondsMax: ANSWER_SECONDS_MAX });
    const metrics = parse(text);
    const clock = value(metrics, "todoku_clock_time_seconds");
    // The clock was read between the request and the answer: only what is beyond that is a difference.
    const nearest = clock === null ? null : Math.min(Math.max(clock * 1000, sent), Date.now());
    return { metrics, error: null, at: Date.now(), lastAt: Date.now(), aheadSeconds: clock === null ? null : clock - nearest / 1000 };
  } catch (error) {
    const lastAt = snapshot.peek().services[service]?.lastAt ?? null;
    return { metrics: null, error, at: Date.now(), lastAt, aheadSeconds: null };
  }
}

/** Return what metrics do not tell; it is asked for only while something is wrong. */
async function details(services) {
  const orders = services.orders?.metrics;
  const pauses = Object.entries(services).filter(([, { metrics }]) => value(metrics, "todoku_pauses"));
  const oldestPending = (orders?.get("todoku_orders_oldest_open_seconds") ?? []).find(({ labels }) => labels.status === "PENDING")?.value;
  const [paused, failing, short, held] = await Promise.all([
    Promise.all(pauses.map(async ([name]) => [name, (await quietly(get(name, "/pauses?state=PAUSED&limit=10")))?.items])),
    sum(services.shipping?.metrics, "todoku_shipments_failing") ? quietly(oldestFailing()) : null,
    oldestPending > STOCK_SECONDS_MAX ? quietly(waitingForStock()) : null,
    value(orders, "todoku_orders_held") ? quietly(get("orders", "/orders?held=true&sort=createdAt&limit=1")) : null,
  ]);
  return { pauses: Object.fromEntries(paused), failing, short, held: held?.items[0] };
}

const quietly = (answer) => answer.catch(() => null);

/** Return the oldest order for which a call to the carrier has failed. */
async function oldestFailing() {
  const { items } = await get("orders", `/orders?status=AWAITING_SHIPMENT&sort=createdAt&limit=${ORDERS_MAX}`);
  return items.find((order) => order.waitingFor?.what === "carrier" && order.waitingFor.lastError);
}

/** Return how many orders wait for stock, of the oldest, since when, and which products they lack. */
async function waitingForStock() {
  const { items } = await get("orders", `/orders?status=PENDING&sort=createdAt&limit=${ORDERS_MAX}`);
  const waiting = items.filter((order) => order.waitingFor?.what === "restock");
  return { orders: waiting.length, since: waiting[0]?.waitingFor.since, products: [...new Set(waiting.flatMap(missing))] };
}

/** Return the products that an order waits for. */
export const missing = (order) => order.lines.filter((line) => line.reserved + line.cancelled < line.ordered).map((line) => line.productId);

/** Return how long calls to the carrier took on average that ended in the last 20 s, or else in the last minute; null if none did. */
export function callSeconds(samples) {
  const last = samples.at(-1);
  for (const milliseconds of CALL_WINDOWS) {
    const before = samples.findLast((each) => each.at <= last.at - milliseconds) ?? samples[0];
    const calls = last.calls - before.calls;
    if (calls > 0) return (last.callSeconds - before.callSeconds) / calls;
  }
  return null;
}

/** Return what the overview draws as lines. */
export function sample(services) {
  const orders = services.orders?.metrics;
  const shipping = services.shipping?.metrics;
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
    outboxSeconds: Math.max(0, ...all.map((each) => largest(each, "todoku_outbox_oldest_pending_seconds"))),
    calls: sum(shipping, "todoku_carrier_call_duration_seconds_count"),
    callSeconds: sum(shipping, "todoku_carrier_call_duration_seconds_sum"),
  };
}

export async function refresh() {
  const names = about.peek().services;
  const states = await Promise.all(names.map(ask));
  const services = Object.fromEntries(names.map((name, index) => [name, states[index]]));
  const samples = [...history.peek(), sample(services)].slice(-KEPT_MAX);
  const next = { services, details: await details(services), callSeconds: callSeconds(samples), at: Date.now() };
  snapshot.value = next;
  history.value = samples;
  problems.value = noticed(findProblems(next), problems.peek(), next.at);
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
