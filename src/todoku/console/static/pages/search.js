// What an id or a name may be: an order, a product, a shipment, a dead letter, a customer.
import { html, useEffect } from "../lib/html.js";
import { about, get } from "../lib/api.js";
import { t } from "../lib/i18n.js";
import { events } from "../lib/live.js";
import { usePolled } from "../lib/poll.js";
import { href, navigate, query } from "../lib/router.js";
import { Icon } from "../components/icons.js";
import { Card, Empty, Found, Head } from "../components/parts.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Return the requests that may find a text: `{kind, service, path, link(found)}`. */
export function lookups(text, services) {
  const id = encodeURIComponent(text);
  if (UUID.test(text)) {
    return [
      { kind: "order", service: "orders", path: `/orders/${id}`, link: (order) => `orders/${order.id}` },
      { kind: "shipment", service: "shipping", path: `/shipments/${id}`, link: (shipment) => `orders/${shipment.orderId}` },
      ...services.map((service) => ({ kind: "letter", service, path: `/dead-letters/${id}`, link: (letter) => `dead-letters?service=${service}&letter=${letter.id}` })),
    ];
  }
  return [
    { kind: "product", service: "inventory", path: `/products/${id}`, link: (product) => `stock/${encodeURIComponent(product.id)}` },
    { kind: "customer", service: "orders", path: `/orders?userId=${id}&limit=1`, link: (page) => (page.items.length ? `orders?userId=${id}` : null) },
    { kind: "ordersOf", service: "orders", path: `/orders?productId=${id}&limit=1`, link: (page) => (page.items.length ? `orders?productId=${id}` : null) },
  ];
}

async function find(text, abort) {
  const event = events.peek().find((each) => each.id === text.toLowerCase());
  if (event) return [{ kind: "event", link: `orders/${event.orderId}` }];
  const found = [];
  // One after the other: an id belongs to one thing, so that the first hit ends the search.
  for (const { kind, service, path, link } of lookups(text, about.value.services)) {
    const target = await get(service, path, abort).then(link, () => null);
    if (target) found.push({ kind, link: target });
    if (target && UUID.test(text)) break;
  }
  return found;
}

export function Search() {
  const text = (query.value.get("q") ?? "").trim();
  const state = usePolled((abort) => (text ? find(text, abort) : []), { seconds: 0, key: text });
  const only = state.data?.length === 1 ? state.data[0].link : null;
  useEffect(() => {
    if (only) navigate(only, { replace: true });
  }, [only]);
  return html`<${Head} title=${t("page.search")} lead=${text} /><${Card}><${Found} state=${state}>${(found) =>
    found.length
      ? found.map(({ kind, link }) => html`<div class="body" key=${kind + link}><a class="row" data-row href=${href(link)}><${Icon} name="search" />${t(`search.${kind}`, { text })}</a></div>`)
      : html`<${Empty} icon="search" title=${t("search.none", { text })}>${t("search.none.hint")}<//>`}<//><//>`;
}
