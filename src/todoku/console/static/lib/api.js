// Requests to the services, through the console, with the reader's own rights.
import { signal } from "./html.js";

export const base = new URL(document.baseURI).pathname;

/** Who is logged in: `{actor, csrfToken, issuer}`. The credential itself is at the console; no script ever has it. */
export const session = signal({ actor: null, csrfToken: null, issuer: false });
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
  return session.peek().csrfToken ? { "X-CSRF-Token": session.peek().csrfToken, ...more } : more;
}

export async function problemOf(response) {
  const details = await response.json().catch(() => ({}));
  if (response.status === 401) {
    if (!needsLogin.peek() && session.peek().actor) loadSession();
    needsLogin.value = true;
  }
  return new Problem(response.status, details);
}

async function send(service, path, init, isAgain = false) {
  let response;
  try {
    response = await fetch(address(service, path), { ...init, headers: requestHeaders(init.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { type: "console-unreachable", title: "console-unreachable" });
  }
  if (!response.ok) {
    const problem = await problemOf(response);
    if (problem.slug !== "csrf-token-missing" || isAgain) throw problem;
    await loadSession(); // Another tab has logged in again.
    return send(service, path, init, true);
  }
  needsLogin.value = false;
  return response;
}

/** Ask who is logged in. */
export async function loadSession() {
  const response = await fetch(`${base}session`, { cache: "no-store" });
  if (response.ok) session.value = await response.json();
}

/** Log in with a key, which is not kept here. Returns whether it was accepted. */
export async function logIn(key) {
  const response = await fetch(`${base}session`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key }),
  });
  if (!response.ok) throw await problemOf(response);
  session.value = await response.json();
  await loadSession(); // It says so only if the browser has kept the cookie.
  return session.value.actor !== null;
}

export async function logOut() {
  const response = await fetch(`${base}session`, { method: "DELETE", headers: requestHeaders() });
  if (!response.ok) throw await problemOf(response);
  session.value = await response.json();
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
