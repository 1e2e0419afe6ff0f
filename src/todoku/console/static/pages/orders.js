// Orders: presets and filters in the address, pages, and what is new behind a chip.
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { get } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { number, t } from "../lib/i18n.js";
import { listen } from "../lib/live.js";
import { navigate, query, setQuery } from "../lib/router.js";
import { CancelMatching } from "../components/bulk-cancel.js";
import { OrderTable } from "../components/order-rows.js";
import { Card, Cli, Empty, Failed, Head, Loading } from "../components/parts.js";
import { PlaceOrder } from "../components/place-order.js";

const PAGE = 50;
const ROWS_MAX = 1000;
const NEW_MAX = 1000;
const FLIGHT = ["PENDING", "AWAITING_SHIPMENT", "CANCELLING"];

/** What a preset asks the service for. */
export const PRESETS = {
  all: {},
  flight: { status: FLIGHT },
  stuck: { overdue: "true" },
  held: { held: "true" },
  parked: { parked: "true" },
  cancelled: { status: ["CANCELLING", "CANCELLED"] },
  failed: { status: ["SHIPMENT_FAILED", "CANCELLED_NO_STOCK"] },
  completed: { status: ["COMPLETED"] },
};

const FIELDS = ["userId", "productId", "createdFrom", "createdTo"];

/** Return the query of the service for what is in the address. */
export function listQuery(parameters) {
  const asked = new URLSearchParams();
  for (const [name, values] of Object.entries(PRESETS[parameters.get("preset")] ?? {})) for (const each of [values].flat()) asked.append(name, each);
  for (const name of FIELDS) if (parameters.get(name)) asked.set(name, name.startsWith("created") ? new Date(parameters.get(name)).toISOString() : parameters.get(name));
  if (parameters.get("sort") === "oldest") asked.set("sort", "createdAt");
  return asked;
}

/** Return the command that lists the same. */
export function listCommand(asked) {
  const options = { user: asked.get("userId"), product: asked.get("productId"), overdue: asked.has("overdue"), parked: asked.has("parked"), held: asked.has("held") };
  const statuses = asked.getAll("status").map((each) => `--status ${each}`);
  return [command(["order", "list"], options), ...statuses].join(" ");
}

export function Orders() {
  const parameters = query.value;
  const asked = listQuery(parameters);
  const key = asked.toString();
  const [list, setList] = useState({ orders: [], next: null, total: null, state: "loading", error: null, at: 0 });
  const [live, setLive] = useState({ statuses: new Map(), fresh: new Set() });

  async function load(cursor = null) {
    const wanted = new URLSearchParams(asked);
    wanted.set("limit", PAGE);
    if (cursor) wanted.set("cursor", cursor);
    else wanted.set("count", "true");
    try {
      const page = await get("orders", `/orders?${wanted}`);
      setList((before) => ({
        orders: cursor ? [...before.orders, ...page.items].slice(0, ROWS_MAX) : page.items,
        next: page.nextCursor,
        total: cursor ? before.total : (page.total ?? null),
        state: "there",
        error: null,
        at: Date.now(),
      }));
      if (!cursor) setLive({ statuses: new Map(), fresh: new Set() });
    } catch (error) {
      setList((before) => ({ ...before, state: before.orders.length ? "there" : "failed", error }));
    }
  }

  useEffect(() => {
    setList((before) => ({ ...before, state: "loading" }));
    load();
  }, [key]);
  useEffect(
    () =>
      listen((events) =>
        setLive(({ statuses, fresh }) => {
          const next = new Map([...statuses].slice(-2 * ROWS_MAX));
          const created = new Set(fresh);
          for (const event of events) {
            next.set(event.orderId, event);
            if (event.type === "OrderCreatedEvent" && created.size < NEW_MAX) created.add(event.orderId);
          }
          return { statuses: next, fresh: created };
        }),
      ),
    [],
  );

  const preset = parameters.get("preset") ?? "all";
  const listed = useMemo(() => new Set(list.orders.map((order) => order.id)), [list.orders]);
  const isNew = preset === "all" || preset === "flight" ? [...live.fresh].filter((id) => !listed.has(id)).length : 0;
  const shownNew = `${number(isNew)}${live.fresh.size < NEW_MAX ? "" : "+"}`;
  return html`<${Head} title=${t("page.orders")} lead=${list.total === null ? "" : t("orders.total", { n: Number.parseInt(list.total, 10), total: typeof list.total === "number" ? number(list.total) : list.total })}>
      <${CancelMatching} asked=${asked} total=${list.total} onDone=${() => load()} /><${PlaceOrder} />
    <//>
    <div class="stack">
      <${Filters} parameters=${parameters} preset=${preset} />
      ${isNew > 0 && html`<button type="button" class="chip new-chip" onClick=${() => load()}>${t("orders.new", { n: isNew, total: shownNew })}</button>`}
      <${Card}>
        ${list.error && html`<div class="body"><${Failed} error=${list.error} onRetry=${() => load()} /></div>`}
        ${list.state === "loading" && !list.orders.length && html`<${Loading} />`}
        ${list.state === "there" && !list.orders.length && html`<${Empty} icon="orders" title=${t("orders.none")}>${t(preset === "all" ? "orders.none.hint" : "orders.none.filter")}<//>`}
        ${list.orders.length > 0 && html`<${OrderTable} orders=${list.orders} live=${live.statuses} />`}
        ${list.next && html`<div class="body row"><button type="button" class="button" onClick=${() => load(list.next)} disabled=${list.orders.length >= ROWS_MAX}>${t("more")}</button><span class="quiet small">${t(list.orders.length >= ROWS_MAX ? "rows.max" : "rows.shown", { n: list.orders.length })}</span></div>`}
      <//>
      <${Cli} command=${listCommand(asked)} />
    </div>`;
}

function Filters({ parameters, preset }) {
  const submit = (event) => {
    event.preventDefault();
    setQuery(Object.fromEntries(new FormData(event.target)), { replace: false });
  };
  const filtered = FIELDS.some((name) => parameters.get(name));
  return html`<div class="stack" style=${{ gap: "10px" }}>
    <div class="filters" role="group" aria-label=${t("orders.presets")}>${Object.keys(PRESETS).map(
      (name) => html`<button type="button" class="chip" key=${name} aria-pressed=${name === preset} onClick=${() => setQuery({ preset: name === "all" ? null : name }, { replace: false })}>${t(`preset.${name}`)}</button>`,
    )}</div>
    <form class="filters" onSubmit=${submit} key=${parameters.toString()}>
      <input name="userId" value=${parameters.get("userId") ?? ""} placeholder=${t("order.customer")} aria-label=${t("order.customer")} />
      <input name="productId" value=${parameters.get("productId") ?? ""} placeholder=${t("product")} aria-label=${t("product")} />
      <input name="createdFrom" type="datetime-local" value=${parameters.get("createdFrom") ?? ""} aria-label=${t("filter.from")} title=${t("filter.from")} />
      <button type="submit" class="button">${t("filter")}</button>
      ${filtered && html`<button type="button" class="button ghost" onClick=${() => navigate(`orders${preset === "all" ? "" : `?preset=${preset}`}`)}>${t("filter.clear")}</button>`}
    </form>
  </div>`;
}
