// The newest orders, as they come.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { get } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { listen } from "../lib/live.js";
import { usePolled } from "../lib/poll.js";
import { href } from "../lib/router.js";
import { OrderTable } from "./order-rows.js";
import { Card, Empty, Found } from "./parts.js";

const SHOWN = 8;
const SETTLE_MILLISECONDS = 400;

export function RecentOrders() {
  const state = usePolled((abort) => get("orders", `/orders?limit=${SHOWN}`, abort), { seconds: 30 });
  const [live, setLive] = useState(new Map());
  const timer = useRef(null);
  useEffect(() => {
    const end = listen((events) => {
      setLive((before) => new Map([...[...before].slice(-100), ...events.map((event) => [event.orderId, event])]));
      // Ask once for many events: a busy system has hundreds a second.
      timer.current ??= setTimeout(async () => {
        await state.reload();
        timer.current = null;
      }, SETTLE_MILLISECONDS);
    });
    return () => {
      end();
      clearTimeout(timer.current);
    };
  }, []);
  return html`<${Card} title=${t("overview.recent")} aside=${html`<a href=${href("orders")}>${t("overview.all")}</a>`}><${Found} state=${state}>${(page) =>
    page.items.length ? html`<${OrderTable} brief orders=${page.items} live=${newer(live, state.at)} />` : html`<${Empty} icon="orders" title=${t("orders.none")}>${t("orders.none.hint")}<//>`}<//><//>`;
}

/** Return the events that happened after a list was asked for. */
const newer = (live, at) => new Map([...live].filter(([, event]) => Date.parse(event.recordedAt) > (at ?? 0) - SETTLE_MILLISECONDS));
