// Place an order, to see what happens.
import { html } from "../lib/html.js";
import { change, get } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { t } from "../lib/i18n.js";
import { href, navigate } from "../lib/router.js";
import { ask } from "./dialog.js";
import { Action, shortId } from "./parts.js";

export const PlaceOrder = () => html`<${Action} label=${t("place.button")} icon="plus" primary onClick=${askForOrder} />`;

async function askForOrder() {
  const products = await get("inventory", "/products?limit=100").then((page) => page.items.filter((each) => !each.archived), () => []);
  const options = products.map((each) => ({ value: each.id, label: `${each.id} · ${each.name} (${t("place.available", { n: each.availableQuantity })})` }));
  ask({
    title: t("place.title"),
    intro: t("place.intro"),
    fields: [
      { name: "user", label: t("order.customer"), value: "user123", required: true, maxlength: 128 },
      { name: "product", label: t("product"), value: products.find((each) => each.availableQuantity > 0)?.id ?? options[0]?.value ?? "", required: true, options: options.length ? options : undefined },
      { name: "quantity", label: t("quantity"), type: "number", min: 1, max: 1_000_000, value: 1, required: true },
      { name: "onShortage", label: t("place.shortage"), value: "cancel", required: true, options: ["cancel", "wait"].map((value) => ({ value, label: t(`place.shortage.${value}`) })) },
    ],
    cli: ({ user, product, quantity, onShortage }) => command(["order", "place", `${product}:${quantity}`], { user, "on-shortage": onShortage === "wait" ? "wait" : "" }),
    confirm: t("place.confirm"),
    run: ({ user, product, quantity, onShortage }, key) =>
      change("POST", "orders", "/orders", { userId: user, items: [{ productId: product, quantity: Number(quantity) }], ...(onShortage === "wait" ? { onShortage } : {}) }, { key }),
    done: (order) => {
      navigate(`orders/${order.id}`);
      return { text: t("place.done", { id: shortId(order.id) }), link: { href: href(`orders/${order.id}`), text: t("show") } };
    },
  });
}
