// What needs a person: pure functions from what the services tell to a list, the most serious first.
import { byLabel, largest, sum, value } from "./metrics.js";

const CLOCK_SECONDS_MAX = 3;
const OUTBOX_SECONDS_MAX = 30;
const DUE_SECONDS_MAX = 30;
const DISK_BYTES_MIN = 2 ** 30;
/** With less, a disk counts as full, as for `todoku doctor`: the broker stores nothing, even while a database can still write. */
const DISK_BYTES_FULL = 100 * 2 ** 20;
const CALL_SECONDS_MAX = 5;
const LEVELS = ["bad", "warn", "info"];

/** Return what is wrong: `{key, level, values, since, error, pause, link, command}`. `snapshot` is the one of `lib/snapshot.js`;
 * `since` is in milliseconds, null if no service tells. */
export function findProblems({ services, details = {}, callSeconds = null, at = Date.now() }) {
  const found = [];
  const add = (level, key, values, link, command, more = {}) => found.push({ level, key, values, link, command, since: null, ...more });
  const ago = (seconds) => ({ since: seconds > 0 ? at - seconds * 1000 : null });
  const states = Object.entries(services);
  if (states.length && states.every(([, { error }]) => error?.slug === "console-unreachable")) {
    add("bad", "attention.console", {}, "system", "todoku doctor", { since: states[0][1].lastAt });
    return found;
  }
  const disks = { full: [], low: [] };
  for (const [service, state] of states) {
    const { metrics } = state;
    if (state.error) {
      add("bad", "attention.down", { service }, "system", "todoku doctor", { since: state.lastAt ?? null, error: state.error });
      continue;
    }
    if (!metrics) continue;
    const free = value(metrics, "todoku_disk_free_bytes");
    const full = free !== null && free < DISK_BYTES_FULL;
    if (full) disks.full.push([service, free]);
    else if (free !== null && free < DISK_BYTES_MIN) disks.low.push([service, free]);
    if (value(metrics, "todoku_database_available") === 0 && !full) add("bad", "attention.database", { service }, "system", "todoku doctor");
    if (value(metrics, "todoku_broker_connected") === 0) add("bad", "attention.broker", { service }, "system", "todoku doctor");
    const letters = value(metrics, "todoku_dead_letters_parked");
    if (letters) {
      const errors = [...byLabel(metrics, "todoku_dead_letter_group_size", "error_class").keys()].join(", ");
      add("bad", errors ? "attention.letters.errors" : "attention.letters", { service, n: letters, errors }, `dead-letters?service=${service}`, `todoku dead list --service ${service}`, ago(value(metrics, "todoku_dead_letters_oldest_seconds")));
    }
    if (value(metrics, "todoku_recovering")) add("warn", "attention.recovering", { service }, "system", "todoku doctor");
    const pauses = value(metrics, "todoku_pauses");
    const known = details.pauses?.[service];
    if (pauses && !known?.length) add("warn", "attention.paused", { service, n: pauses }, "pauses", "todoku pauses");
    for (const pause of (pauses && known) || []) {
      add("warn", "attention.pause", { service, target: pause.target, by: pause.pausedBy, reason: pause.reason, id: pause.id }, "pauses", "todoku pauses", { since: Date.parse(pause.pausedAt), pause: { service, ...pause } });
    }
    const oldest = largest(metrics, "todoku_outbox_oldest_pending_seconds");
    if (oldest > OUTBOX_SECONDS_MAX) {
      const subscriber = [...byLabel(metrics, "todoku_outbox_oldest_pending_seconds", "subscriber")].sort((a, b) => b[1] - a[1])[0][0];
      add("warn", "attention.outbox", { service, subscriber }, "subscribers", "todoku doctor", ago(oldest));
    }
    const due = largest(metrics, "todoku_due_rows_delay_seconds");
    if (due > DUE_SECONDS_MAX && !pauses) add("warn", "attention.due", { service }, "system", "todoku doctor", ago(due));
    if (Math.abs(state.aheadSeconds ?? 0) > CLOCK_SECONDS_MAX) add("warn", "attention.clock", { service, seconds: state.aheadSeconds }, "system", "todoku doctor");
  }
  // Services on one machine share a disk.
  const spare = (disk) => ({ services: disk.map(([name]) => name).join(", "), bytes: Math.min(...disk.map(([, bytes]) => bytes)) });
  if (disks.full.length) add("bad", "attention.full", spare(disks.full), "system", "todoku doctor");
  else if (disks.low.length) add("warn", "attention.disk", spare(disks.low), "system", "todoku doctor");
  addOrders(services, details, callSeconds, add, ago);
  return found.sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
}

/** Add what orders wait for: the carrier, stock, the release of a hold. */
function addOrders({ orders, shipping }, { failing, short, held }, callSeconds, add, ago) {
  const overdue = value(orders?.metrics, "todoku_orders_overdue");
  if (overdue) add("warn", "attention.overdue", { n: overdue }, "orders?preset=stuck", "todoku order list --overdue");
  const failed = sum(shipping?.metrics, "todoku_shipments_failing");
  if (failed) {
    const waiting = failing?.waitingFor;
    const told = waiting ? { error: { message: waiting.lastError }, since: Date.parse(waiting.since) } : {};
    add("warn", "attention.carrier", { n: failed, pauseLimit: value(shipping.metrics, "todoku_carrier_pause_limit_seconds") }, failing ? `orders/${failing.id}` : "shipments", failing ? `todoku order why ${failing.id}` : "todoku shipment list", told);
  }
  if (callSeconds > CALL_SECONDS_MAX) add("warn", "attention.slow", { seconds: callSeconds, callLimit: value(shipping?.metrics, "todoku_carrier_call_limit_seconds") }, "shipments", "todoku shipment list");
  if (short?.orders) {
    const [product] = short.products;
    const link = short.products.length === 1 ? `stock/${encodeURIComponent(product)}` : "stock";
    add("warn", "attention.short", { n: short.orders, products: short.products.join(", ") }, link, `todoku product restock ${product} QUANTITY`, { since: Date.parse(short.since) });
  }
  const holds = value(orders?.metrics, "todoku_orders_held");
  if (holds) {
    const hold = held?.holds.find((each) => each.state === "requested" || each.state === "confirmed");
    const key = hold ? "attention.held.by" : "attention.held";
    add("info", key, { n: holds, holder: hold?.holder, reason: hold?.reason }, holds === 1 && held ? `orders/${held.id}` : "orders?preset=held", "todoku order list --held", ago(value(orders.metrics, "todoku_orders_oldest_hold_seconds")));
  }
}

/** Return what names a problem as long as it lasts. */
export const problemId = ({ key, values }) => [key, values.service, values.subscriber, values.id].filter(Boolean).join(" ");

/** Return the problems with `noticedAt`, when this page saw each first; `before` is the last list. */
export function noticed(problems, before, at) {
  const seen = new Map(before.map((problem) => [problemId(problem), problem.noticedAt]));
  return problems.map((problem) => ({ ...problem, noticedAt: seen.get(problemId(problem)) ?? at }));
}
