// Restock, count and change a product. What somebody else has changed meanwhile is shown before anything is done.
import { html } from "../lib/html.js";
import { change, get, getTagged } from "../lib/api.js";
import { command } from "../lib/cli.js";
import { money, number, t } from "../lib/i18n.js";
import { ask } from "./dialog.js";

const path = (product, what = "") => `/products/${encodeURIComponent(product.id)}${what}`;

const body = (quantity, { code, reason }) => ({ quantity, code, ...(reason ? { reason } : {}) });

const codes = (...values) => values.map((value) => ({ value, label: t(`code.${value}`) }));

/** Stock that changed while a dialog was open. */
class StockMoved extends Error {
  constructor(product) {
    super(t("conflict.stock"));
    this.product = product;
    this.errors = [];
  }
}

export function askToRestock(product, reload) {
  ask({
    title: t("restock.title", { id: product.id }),
    fields: [
      { name: "quantity", label: t("restock.quantity"), type: "number", min: 1, max: 1_000_000_000, value: 10, required: true },
      { name: "code", label: t("field.code"), value: "DELIVERY", options: codes("DELIVERY", "RETURN", "OTHER"), required: true },
      { name: "reason", label: t("field.reason"), maxlength: 500 },
    ],
    preview: ({ quantity }) => movement(product, Number(quantity) || 0),
    cli: ({ quantity, code, reason }) => command(["product", "restock", product.id, quantity || "QUANTITY"], { code: code === "DELIVERY" ? "" : code, reason }),
    confirm: t("restock.button"),
    run: (values, key) => change("POST", "inventory", path(product, "/restock"), body(Number(values.quantity), values), { key }),
    done: (now, { quantity }) => {
      reload();
      return { text: t("restock.done", { id: product.id, n: now.stockQuantity }), undo: () => askToCorrect(now, -Number(quantity), reload) };
    },
  });
}

const movement = (product, quantity) => html`${t("stock.onHand")}: ${number(product.stockQuantity)} → <strong>${number(product.stockQuantity + quantity)}</strong> · ${t("stock.available")}: ${number(product.availableQuantity)} → <strong>${number(product.availableQuantity + quantity)}</strong>`;

/** Undo a restock: a correction by the opposite. */
function askToCorrect(product, difference, reload) {
  ask({
    title: t("correct.title", { id: product.id }),
    intro: t("correct.intro"),
    fields: [{ name: "reason", label: t("field.reason"), value: t("correct.undone"), maxlength: 500 }],
    preview: () => movement(product, difference),
    cli: ({ reason }) => command(["product", "correct", product.id, difference], { code: "OTHER", reason }),
    confirm: t("correct.button"),
    run: ({ reason }, key) => change("POST", "inventory", path(product, "/correct"), body(difference, { code: "OTHER", reason }), { key }),
    done: (now) => {
      reload();
      return t("restock.done", { id: product.id, n: now.stockQuantity });
    },
  });
}

/** Enter what was counted. The difference is from the stock that is shown: if that has moved, it is asked again. */
export function askForCount(product, reload, typed = null) {
  const difference = (values) => Number(values.counted) - product.stockQuantity;
  ask({
    title: t("count.title", { id: product.id }),
    intro: typed ? t("conflict.counted", { n: product.stockQuantity }) : t("count.intro", { n: product.stockQuantity }),
    fields: [
      { name: "counted", label: t("count.counted"), type: "number", min: 0, max: 1_000_000_000, value: typed?.counted ?? product.stockQuantity, required: true },
      { name: "code", label: t("field.code"), value: typed?.code ?? "COUNT", options: codes("COUNT", "DAMAGE", "LOSS", "RETURN", "OTHER"), required: true },
      { name: "reason", label: t("field.reason"), value: typed?.reason ?? "", maxlength: 500 },
    ],
    preview: (values) => html`${movement(product, difference(values))} <strong>(${difference(values) > 0 ? "+" : ""}${number(difference(values))})</strong>`,
    cli: (values) => command(["product", "correct", product.id, difference(values)], { code: values.code === "COUNT" ? "" : values.code, reason: values.reason }),
    confirm: t("count.confirm"),
    run: async (values, key) => {
      const now = await get("inventory", path(product));
      if (now.stockQuantity !== product.stockQuantity) throw new StockMoved(now);
      return change("POST", "inventory", path(product, "/correct"), body(difference(values), values), { key });
    },
    conflict: (error, values) => {
      if (error instanceof StockMoved) setTimeout(() => askForCount(error.product, reload, values));
      return null;
    },
    done: (now) => {
      reload();
      return t("restock.done", { id: product.id, n: now.stockQuantity });
    },
  });
}

/** Change name and price, unless somebody else has changed them since (If-Match). */
export async function askToChange(id, reload, typed = null) {
  const { value: product, tag } = await getTagged("inventory", path({ id }));
  ask({
    title: t("change.title", { id }),
    intro: typed ? t("conflict.changed", { name: product.name, price: money(product.price, product.currency) }) : t("change.intro"),
    fields: [
      { name: "name", label: t("product.name"), value: typed?.name ?? product.name, required: true, maxlength: 200 },
      { name: "price", label: t("change.price", { currency: product.currency }), type: "number", min: 0, value: typed?.price ?? product.price, required: true },
    ],
    preview: ({ price }) => html`${t("price")}: ${money(product.price, product.currency)} → <strong>${money(Number(price) || 0, product.currency)}</strong>`,
    cli: ({ name, price }) => command(["product", "set", id], { name: name === product.name ? "" : name, price }),
    confirm: typed ? t("conflict.overwrite") : t("change.confirm"),
    danger: !!typed,
    run: ({ name, price }) => change("PUT", "inventory", path(product), { name, price: Number(price), currency: product.currency }, { ifMatch: tag }),
    conflict: (error, values) => {
      if (error.status === 412) setTimeout(() => askToChange(id, reload, values));
      return null;
    },
    done: () => {
      reload();
      return t("change.done", { id });
    },
  });
}
