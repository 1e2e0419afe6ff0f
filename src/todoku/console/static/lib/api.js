// Requests to the services, through the console, with the reader's own rights.
import { signal } from "./html.js";

export const base = new URL(document.baseURI).pathname;

/** The key of the reader; in the memory of this tab only. */
export const credential = signal(null);
/** Whether a service wants to know who the reader is. */
export const needsLogin = signal(false);

/** A problem (RFC 9457) that a service, or the console, has answered with. */
export class Problem extends Error {
  constructor(status, details) {
    super(details.detail || details.title || `HTTP ${status}`);
    this.status = status;
    this.slug = (details.type ?? "").split("/").pop();
    this.title = details.title ?? `HTTP ${status}`;
    this.errors = details.errors ?? [];
  }
}

export const address = (service, path) => `${base}api/${service}${path}`;

export function requestHeaders(more = {}) {
  return credential.value ? { Authorization: `Bearer ${credential.value}`, ...more } : more;
}

export async function problemOf(response) {
  if (response.status === 401) needsLogin.value = true;
  const details = await response.json().catch(() => ({}));
  return new Problem(response.status, details);
}

async function send(service, path, init) {
  let response;
  try {
    response = await fetch(address(service, path), { ...init, headers: requestHeaders(init.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { type: "console-unreachable", title: "console-unreachable" });
  }
  if (!response.ok) throw await problemOf(response);
  needsLogin.value = false;
  return response;
}

export async function get(service, path, abort) {
  return (await send(service, path, { signal: abort })).json();
}

export async function getText(service, path, abort) {
  return (await send(service, path, { signal: abort })).text();
}

/** Return the answer and its entity tag. */
export async function getTagged(service, path) {
  const response = await send(service, path, {});
  return { value: await response.json(), tag: response.headers.get("etag") };
}

/** Change something. The same `key` sent again gets the answer of the first time. */
export async function change(method, service, path, body, { key, ifMatch } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key && method === "POST") headers["Idempotency-Key"] = `"${key}"`;
  if (ifMatch) headers["If-Match"] = ifMatch;
  const response = await send(service, path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  return response.status === 204 ? null : response.json();
}

/** Return a key for one request and its repetitions. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the console is: its version, and the services in the order in which an order passes them. */
export const about = signal({ version: "", services: ["orders", "inventory", "shipping"] });

export async function loadAbout() {
  const response = await fetch(`${base}api`);
  if (response.ok) about.value = await response.json();
}
