#!/bin/sh
# Walks through what can happen to an order: cancellation, lines, deadline, idempotent requests, holds, a pause.
#
#   make run ARGS="--carrier-delay-seconds 5 --carrier-success-rate 1 --order-deadline-grace-seconds 0"
#   sh examples/orders.sh
#
# ORDERS, INVENTORY and SHIPPING are the addresses of the services. Needs curl and python3.
set -eu
ORDERS=${ORDERS:-http://127.0.0.1:8080}
INVENTORY=${INVENTORY:-http://127.0.0.1:8081}
SHIPPING=${SHIPPING:-http://127.0.0.1:8082}
STATUS= BODY= TRIES_MAX=600

step() { printf '\n# %s\n' "$1"; }

# request METHOD URL [BODY [HEADER]]: sends a request, and sets STATUS and BODY.
request() {
  answer=$(curl --silent --show-error --max-time 30 --request "$1" --write-out '\n%{http_code}' \
    --header 'Content-Type: application/json' --header "${4:-Accept: application/json}" \
    ${3:+--data "$3"} "$2")
  STATUS=${answer##*
}
  BODY=${answer%
*}
}

# get FIELD: prints a field of BODY, such as cancellation.state or lines.0.cancelled.
get() {
  printf '%s' "$BODY" | python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value[int(name)] if isinstance(value, list) else value[name]
print(value)' "$1"
}

# expect WHAT FOUND WANTED
expect() {
  [ "$2" = "$3" ] || { printf 'FAILED: %s is %s, not %s\n%s\n' "$1" "$2" "$3" "$BODY" >&2; exit 1; }
  printf '  %s: %s\n' "$1" "$2"
}

# place FIELDS: places an order of two mice, with more fields of its body.
place() {
  request POST "$ORDERS/orders" \
    '{"userId": "alice", "items": [{"productId": "mouse", "quantity": 2, "price": 5000}]'"${1:-}"'}'
  expect 'place an order' "$STATUS" 201
  ID=$(get id)
}

# ends WANTED: waits until the order has ended, and expects this status.
ends() {
  tries=0
  while :; do
    request GET "$ORDERS/orders/$ID"
    case $(get status) in
      PENDING | AWAITING_SHIPMENT | CANCELLING) ;;
      *) break ;;
    esac
    tries=$((tries + 1))
    [ "$tries" -lt "$TRIES_MAX" ] || { printf 'FAILED: it does not end\n%s\n' "$BODY" >&2; exit 1; }
    sleep 0.1
  done
  expect 'it ends as' "$(get status)" "$1"
}

step 'An order is cancelled before the carrier is called; its stock is available again'
request POST "$INVENTORY/products/mouse/restock" '{"quantity": 20}'
AVAILABLE=$(get availableQuantity)
place
expect 'it waits for' "$(get waitingFor.what)" stock
request POST "$ORDERS/orders/$ID/cancel" '{"reason": "Ordered twice."}'
expect 'cancel it' "$STATUS" 202
expect 'it waits for' "$(get waitingFor.what)" cancellation
expect 'cancellation.state' "$(get cancellation.state)" requested
REQUESTED_AT=$(get cancellation.requestedAt)
request POST "$ORDERS/orders/$ID/cancel" '{}'
expect 'ask again' "$STATUS" 202
expect 'it is the same request, of' "$(get cancellation.requestedAt)" "$REQUESTED_AT"
ends CANCELLED
expect 'cancellation.state' "$(get cancellation.state)" confirmed
expect 'it waits for' "$(get waitingFor)" None
request GET "$INVENTORY/products/mouse"
expect 'availableQuantity' "$(get availableQuantity)" "$AVAILABLE"

step 'An order without enough stock keeps its own ending, whoever is first'
request POST "$ORDERS/orders" \
  '{"userId": "alice", "items": [{"productId": "mouse", "quantity": 1000000, "price": 5000}]}'
ID=$(get id)
ends CANCELLED_NO_STOCK

step 'An order pays the price of the catalogue; another one is refused with both'
request POST "$ORDERS/orders" '{"userId": "alice", "items": [{"productId": "mouse", "quantity": 1, "price": 4999}]}'
expect 'another price' "$STATUS" 409
expect 'prices.0.requestedPrice' "$(get prices.0.requestedPrice)" 4999
expect 'prices.0.price' "$(get prices.0.price)" 5000
request POST "$ORDERS/orders" '{"userId": "alice", "items": [{"productId": "mouse", "quantity": 1}]}'
expect 'without a price' "$STATUS" 201
expect 'totalAmount' "$(get totalAmount)" 5000
request POST "$ORDERS/orders/$(get id)/cancel" '{}'

step 'One piece is cancelled; the order goes on without it'
place
request POST "$ORDERS/orders/$ID/cancel" '{"items": [{"productId": "mouse", "quantity": 1}]}'
expect 'cancel one piece' "$STATUS" 202
request POST "$ORDERS/orders/$ID/cancel" '{"items": [{"productId": "mouse", "quantity": 2}]}'
expect 'more than is left' "$STATUS" 422
tries=0
until request GET "$ORDERS/orders/$ID" && [ "$(get changes.0.state)" != requested ]; do
  tries=$((tries + 1))
  [ "$tries" -lt "$TRIES_MAX" ] || { printf 'FAILED: no answer\n%s\n' "$BODY" >&2; exit 1; }
  sleep 0.1
done
expect 'changes.0.state' "$(get changes.0.state)" confirmed
expect 'lines.0.cancelled' "$(get lines.0.cancelled)" 1
CANCELLED_LINE=$ID

step 'An order that is late is cancelled by its deadline'
DEADLINE=$(python3 -c '
from datetime import UTC, datetime, timedelta
print((datetime.now(UTC) + timedelta(seconds=1)).isoformat())')
place ", \"deadline\": \"$DEADLINE\""
ends CANCELLED
expect 'cancellation.by' "$(get cancellation.by)" deadline
request POST "$ORDERS/orders" '{"userId": "alice", "deadline": "2020-01-01T00:00:00Z",
  "items": [{"productId": "mouse", "quantity": 1, "price": 5000}]}'
expect 'a deadline in the past' "$STATUS" 422

step 'A request that is repeated with its key is executed once'
KEY="Idempotency-Key: \"orders-$$-$(date +%s)\""
BODY_1='{"userId": "bob", "items": [{"productId": "mouse", "quantity": 1, "price": 5000}]}'
request POST "$ORDERS/orders" "$BODY_1" "$KEY"
expect 'place an order' "$STATUS" 201
FIRST=$(get id)
request POST "$ORDERS/orders" "$BODY_1" "$KEY"
expect 'again with the same key' "$STATUS" 201
expect 'it is the same order' "$(get id)" "$FIRST"
request POST "$ORDERS/orders" '{"userId": "bob", "items": [{"productId": "mouse", "quantity": 3, "price": 5000}]}' "$KEY"
expect 'another order with that key' "$STATUS" 422
ID=$FIRST

step 'A held order is not shipped; it goes on when its holds are released'
KEPT=$ID
place ', "holds": [{"holder": "fraud-review", "reason": "A new card."}]'
request POST "$ORDERS/orders/$ID/holds" '{"holder": "address-check", "reason": "No house number."}'
expect 'hold it once more' "$STATUS" 202
tries=0
until request GET "$ORDERS/orders/$ID" && [ "$(get holds.1.state)" != requested ] &&
  [ "$(get waitingFor.what)" = release ]; do
  tries=$((tries + 1))
  [ "$tries" -lt "$TRIES_MAX" ] || { printf 'FAILED: no answer\n%s\n' "$BODY" >&2; exit 1; }
  sleep 0.1
done
expect 'holds.0.state' "$(get holds.0.state)" confirmed
expect 'holds.1.state' "$(get holds.1.state)" confirmed
FRAUD=$(get holds.0.id) ADDRESS=$(get holds.1.id)
request GET "$ORDERS/orders?held=true"
expect 'the held order is' "$(get items.0.id)" "$ID"
for HOLD in "$FRAUD" "$ADDRESS" "$ADDRESS"; do
  request POST "$ORDERS/orders/$ID/holds/$HOLD/release"
  expect 'release a hold' "$(get state)" released
done
ends COMPLETED
request POST "$ORDERS/orders/$ID/holds" '{"holder": "fraud-review", "reason": "Too late."}'
expect 'hold what has ended' "$STATUS" 409
ID=$KEPT

step 'An order waits for stock that is missing, and is served when it arrives'
request PUT "$INVENTORY/products/rare-$$" '{"name": "Rare Keyboard", "price": 5000}'
expect 'a product without stock' "$STATUS" 201
request POST "$ORDERS/orders" "{\"userId\": \"alice\", \"onShortage\": \"wait\",
  \"items\": [{\"productId\": \"rare-$$\", \"quantity\": 2, \"price\": 5000}]}"
expect 'place an order that waits' "$STATUS" 201
ID=$(get id)
tries=0
until request GET "$ORDERS/orders/$ID" && [ "$(get waitingFor.what)" = restock ]; do
  tries=$((tries + 1))
  [ "$tries" -lt "$TRIES_MAX" ] || { printf 'FAILED: it does not wait\n%s\n' "$BODY" >&2; exit 1; }
  sleep 0.1
done
expect 'it is not cancelled' "$(get status)" PENDING
request POST "$INVENTORY/products/rare-$$/restock" '{"quantity": 2}'
tries=0
while request GET "$ORDERS/orders/$ID" && [ "$(get status)" = PENDING ]; do
  tries=$((tries + 1))
  [ "$tries" -lt "$TRIES_MAX" ] || { printf 'FAILED: it is not served\n%s\n' "$BODY" >&2; exit 1; }
  sleep 0.1
done
ID=$FIRST

step 'Staff correct the stock, and the ledger says who changed it and why'
request POST "$INVENTORY/products/mouse/correct" '{"quantity": -1, "code": "DAMAGE", "reason": "Fell down."}'
expect 'correct the stock' "$STATUS" 200
request GET "$INVENTORY/products/mouse/ledger?limit=50"
expect 'the damage is in the ledger' "$(printf '%s' "$BODY" | python3 -c '
import json, sys
print([each["quantity"] for each in json.load(sys.stdin)["items"] if each["code"] == "DAMAGE"][0])')" -1
request POST "$INVENTORY/products/mouse/correct" '{"quantity": -1000000}'
expect 'more than there is' "$STATUS" 409
request GET "$INVENTORY/products/mouse/reservations"
expect 'the orders that hold it' "$STATUS" 200

step 'While a product is paused, no order that contains it is booked'
request POST "$SHIPPING/pauses" '{"target": "product:prod2", "reason": "A batch is recalled.", "by": "alice"}'
expect 'pause the product' "$STATUS" 201
request POST "$SHIPPING/pauses/$(get id)/resume" '{"by": "alice"}'
expect 'resume it' "$STATUS $(get target)" '200 product:prod2'

step 'While the carrier is paused, orders are taken and no parcel is booked'
request POST "$SHIPPING/pauses" '{"target": "carrier", "reason": "The warehouse is closed.", "by": "alice"}'
expect 'pause the carrier' "$STATUS" 201
PAUSE=$(get id)
SHIPPED=$ID
place
tries=0
until request GET "$ORDERS/orders/$ID" && [ "$(get waitingFor.what)" = carrier ] &&
  [ "$(get waitingFor.pauses)" != '[]' ]; do
  tries=$((tries + 1))
  [ "$tries" -lt "$TRIES_MAX" ] || { printf 'FAILED: it shows no pause\n%s\n' "$BODY" >&2; exit 1; }
  sleep 0.1
done
expect 'who keeps it from being booked' "$(get waitingFor.pauses.0.by)" alice
request GET "$SHIPPING/pauses?state=PAUSED"
expect 'who paused it' "$(get items.0.pausedBy)" alice
request POST "$SHIPPING/pauses/$PAUSE/resume" '{"by": "bob", "rate": 1001}'
expect 'resume at too high a rate' "$STATUS" 422
request POST "$SHIPPING/pauses/$PAUSE/resume" '{"by": "bob", "rate": 50}'
expect 'resume it' "$STATUS" 200
request POST "$SHIPPING/pauses/$PAUSE/resume" '{"by": "bob"}'
expect 'resume it again' "$STATUS" 409
ends COMPLETED
ID=$SHIPPED

step 'What was shipped cannot be cancelled any more'
tries=0
while request GET "$ORDERS/orders/$ID" && case $(get status) in PENDING | AWAITING_SHIPMENT) true ;; *) false ;; esac; do
  tries=$((tries + 1))
  [ "$tries" -lt "$TRIES_MAX" ] || { printf 'FAILED: it does not end\n%s\n' "$BODY" >&2; exit 1; }
  sleep 0.1
done
request POST "$ORDERS/orders/$ID/cancel" '{}'
expect 'cancel it' "$STATUS" 409
request POST "$ORDERS/orders/0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e/cancel" '{}'
expect 'cancel an unknown order' "$STATUS" 404

step 'The feed of all changes, and the stream of one order'
request GET "$ORDERS/changes?limit=1"
expect 'the first change' "$(get items.0.position)" 1
request GET "$ORDERS/changes?limit=1&after=$(get next)"
expect 'the next one' "$(get items.0.position)" 2
request GET "$ORDERS/changes?after=0.1.00000000.00000000"
expect 'a cursor that is none' "$STATUS" 400
request GET "$ORDERS/orders/$CANCELLED_LINE/stream"
expect 'the stream of an order that has ended, to its end' "$STATUS" 200
LAST=$(printf '%s' "$BODY" | sed -n 's/^id: //p' | tail -n 1)
request GET "$ORDERS/orders/$CANCELLED_LINE/stream" '' "Last-Event-ID: $LAST"
expect 'connecting again' "$STATUS" 204

step 'The history of the order of which one piece was cancelled'
request GET "$ORDERS/orders/$CANCELLED_LINE/events"
printf '%s' "$BODY" | python3 -c '
import json, sys
for event in json.load(sys.stdin)["items"]:
    print("  {source:<10} {type:<28} {status}".format(**event))'
printf '\nall as expected\n'
