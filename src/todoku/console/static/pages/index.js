// The pages by their path, in the sequence of the navigation.
import { Audit } from "./audit.js";
import { DeadLetters } from "./dead-letters.js";
import { Events } from "./events.js";
import { Order } from "./order.js";
import { Orders } from "./orders.js";
import { Overview } from "./overview.js";
import { Pauses } from "./pauses.js";
import { Saga } from "./saga.js";
import { Search } from "./search.js";
import { Shipments } from "./shipments.js";
import { Product } from "./product.js";
import { Stock } from "./stock.js";
import { Subscribers } from "./subscribers.js";
import { System } from "./system.js";

export const PAGES = [
  ["", Overview],
  ["orders", Orders],
  ["orders/:id", Order],
  ["saga", Saga],
  ["events", Events],
  ["dead-letters", DeadLetters],
  ["subscribers", Subscribers],
  ["stock", Stock],
  ["stock/:id", Product],
  ["shipments", Shipments],
  ["pauses", Pauses],
  ["audit", Audit],
  ["system", System],
  ["search", Search],
];

/** What the navigation shows: path, icon, and whether a gap comes before it. */
export const NAVIGATION = [
  ["", "overview"],
  ["orders", "orders"],
  ["saga", "saga"],
  ["events", "events"],
  ["dead-letters", "letters", "gap"],
  ["subscribers", "subscribers"],
  ["pauses", "pauses"],
  ["stock", "stock", "gap"],
  ["shipments", "shipments"],
  ["audit", "audit", "gap"],
  ["system", "system"],
];
