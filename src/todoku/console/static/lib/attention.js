// What needs a person: pure functions from what the services tell to a list, the most serious first.
import { byLabel, largest, sum, value } from "./metrics.js";

const CLOCK_SECONDS_MAX = 3;
const OUTBOX_SECONDS_MAX = 30;
const DUE_SECONDS_MAX = 30;
const DISK_BYTES_MIN = 2 ** 30;

/** Return what is wrong: `{key, level, values, link, command}`. `snapshot` is what `useSnapshot` returns. */
export function findProblems(snapshot) {
  const found = [];
  const add = (level, key, values, link, command) => found.push({ level, key, values, link, command });
  for (const [service, state] of Object.entries(snapshot.services)) {
    const { metrics } = state;
    if (state.error) {
      add("bad", "attention.down", { service, error: state.error.message }, "system", "todoku doctor");
      continue;
    }
    if (!metrics) continue;
    if (value(metrics, "todoku_database_available") === 0) add("bad", "attention.database", { service }, "system", "todoku doctor");
    if (value(metrics, "todoku_broker_connected") === 0) add("bad", "attention.broker", { service }, "system", "todoku doctor");
    const letters = value(metrics, "todoku_dead_letters_parked");
    if (letters) add("bad", "attention.letters", { service, n: letters }, `dead-letters?service=${service}`, `todoku dead list --service ${service}`);
    if (value(metrics, "todoku_recovering")) add("warn", "attention.recovering", { service }, "system", "todoku doctor");
    const pauses = value(metrics, "todoku_pauses");
    if (pauses) add("warn", "attention.paused", { service, n: pauses }, "pauses", "todoku pauses");
    const oldest = largest(metrics, "todoku_outbox_oldest_pending_seconds");
    if (oldest > OUTBOX_SECONDS_MAX) {
      const subscriber = [...byLabel(metrics, "todoku_outbox_oldest_pending_seconds", "subscriber")].sort((a, b) => b[1] - a[1])[0][0];
      add("warn", "attention.outbox", { service, subscriber, seconds: oldest }, "subscribers", "todoku doctor");
    }
    const due = largest(metrics, "todoku_due_rows_delay_seconds");
    if (due > DUE_SECONDS_MAX && !pauses) add("warn", "attention.due", { service, seconds: due }, "system", "todoku doctor");
    const free = value(metrics, "todoku_disk_free_bytes");
    if (free !== null && free < DISK_BYTES_MIN) add("warn", "attention.disk", { service, bytes: free }, "system", "todoku doctor");
    if (Math.abs(state.aheadSeconds ?? 0) > CLOCK_SECONDS_MAX) add("warn", "attention.clock", { service, seconds: state.aheadSeconds }, "system", "todoku doctor");
  }
  const orders = snapshot.services.orders?.metrics;
  const overdue = value(orders, "todoku_orders_overdue");
  if (overdue) add("warn", "attention.overdue", { n: overdue }, "orders?preset=stuck", "todoku order list --overdue");
  const failing = sum(snapshot.services.shipping?.metrics, "todoku_shipments_failing");
  if (failing) add("warn", "attention.carrier", { n: failing }, "shipments", "todoku shipment list");
  return found.sort((a, b) => (a.level === "bad" ? 0 : 1) - (b.level === "bad" ? 0 : 1));
}
