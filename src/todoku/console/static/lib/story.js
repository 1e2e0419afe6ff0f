// The story of an order in plain words, from its events: pure functions.

/** How an event is meant: what colour and mark it gets. */
const KINDS = {
  OrderCreatedEvent: "start",
  OrderCompletedEvent: "done",
  ShipmentCompletedEvent: "done",
  OrderCancelledEvent: "ended",
  StockReservationFailedEvent: "failed",
  ShipmentFailedEvent: "failed",
  BookingAttemptFailedEvent: "retry",
  StockReleasedEvent: "compensation",
  CancellationRequestedEvent: "compensation",
  CancellationConfirmedEvent: "compensation",
  HoldRequestedEvent: "held",
  HoldConfirmedEvent: "held",
  InventoryMessageParkedEvent: "parked",
  ShippingMessageParkedEvent: "parked",
  StockAwaitedEvent: "held",
};

export const kindOf = (type) => KINDS[type] ?? "step";

/** Return the key of the sentence about an event, and its values. `show` formats items, money and times. */
export function sentence(event, show) {
  const data = event.data ?? {};
  const by = event.actor ?? data.requestedBy ?? data.releasedBy ?? null;
  const short = (list) =>
    (list ?? []).map((item) => `${item.productId}: ${item.requestedQuantity} → ${item.availableQuantity}`).join(", ");
  switch (event.type) {
    case "OrderCreatedEvent":
      return ["story.created", { user: data.userId, items: show.items(data.items ?? []), total: show.money(data.totalAmount, data.currency) }];
    case "StockReservedEvent":
      return ["story.reserved", { items: show.items(data.items ?? []) }];
    case "StockReservationFailedEvent":
      return ["story.refused", { missing: short(data.failedItems) }];
    case "StockAwaitedEvent":
      return ["story.awaited", { missing: short(data.missing) }];
    case "ShipmentInitiatedEvent":
      return ["story.initiated", {}];
    case "BookingAttemptFailedEvent":
      return ["story.attemptFailed", { n: data.attempts, error: data.error, next: show.time(data.nextAttemptAt) }];
    case "ShipmentCompletedEvent":
      return ["story.shipped", { tracking: data.trackingNumber }];
    case "ShipmentFailedEvent":
      return ["story.rejected", { reason: data.reason }];
    case "StockReleasedEvent":
      return [data.outcome === "NEVER_RESERVED" ? "story.neverReserved" : "story.released", { items: show.items(data.items ?? []) }];
    case "CancellationRequestedEvent":
      return [by ? "story.cancelRequestedBy" : "story.cancelRequested", { by, what: data.whole === false ? show.items(data.items ?? []) : show.whole, reason: data.reason ? show.because(data.reason) : "" }];
    case "CancellationConfirmedEvent":
      return ["story.cancelConfirmed", {}];
    case "CancellationRefusedEvent":
      return ["story.cancelRefused", { reason: data.reason }];
    case "HoldRequestedEvent":
      return ["story.holdRequested", { holder: data.holder, reason: data.reason }];
    case "HoldConfirmedEvent":
      return ["story.holdConfirmed", { holder: data.holder }];
    case "HoldRefusedEvent":
      return ["story.holdRefused", { holder: data.holder, reason: data.refusal }];
    case "HoldReleasedEvent":
      return [data.outcome === "EXPIRED" ? "story.holdExpired" : "story.holdReleased", { holder: data.holder }];
    case "InventoryMessageParkedEvent":
    case "ShippingMessageParkedEvent":
      return ["story.parked", { service: event.source, type: data.messageType, error: data.error }];
    case "InventoryMessageClosedEvent":
    case "ShippingMessageClosedEvent":
      return ["story.resolved", { service: event.source, type: data.messageType }];
    case "OrderCompletedEvent":
      return ["story.completed", {}];
    case "OrderCancelledEvent":
      return [`story.ended.${data.status}`, { reason: data.reason }];
    default:
      return ["story.other", { type: event.type, service: event.source }];
  }
}

/** Return the events in the order in which they occurred. */
export function inOrder(events) {
  return [...events].sort((a, b) => Date.parse(a.time) - Date.parse(b.time) || micros(a.time) - micros(b.time) || a.sequence - b.sequence);
}

/** Return the microseconds of a time that JavaScript's dates drop. */
function micros(time) {
  return Number((/\.(\d{1,6})/.exec(time)?.[1] ?? "").padEnd(6, "0").slice(3));
}

/** Return the story: a sentence for each event, with how long nothing happened before it, in seconds. */
export function tell(events, show) {
  let before = null;
  return inOrder(events).map((event) => {
    const at = Date.parse(event.time);
    const waited = before === null ? 0 : Math.max(0, (at - before) / 1000);
    before = at;
    const [key, values] = sentence(event, show);
    return { id: event.id, time: event.time, source: event.source, kind: kindOf(event.type), type: event.type, key, values, waited };
  });
}
