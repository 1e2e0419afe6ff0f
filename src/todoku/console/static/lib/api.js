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

/** How long an answer is waited for: a service that is stopped keeps its connections open. */
const READ_SECONDS_MAX = 10;
const CHANGE_SECONDS_MAX = 30;

export const address = (service, path) => `${base}api/${service}${path}`;

/** A service that takes connections and does not answer: it is stopped, or stuck. */
export class Unanswered extends Problem {
  constructor(service, seconds, changes) {
    super(0, { type: "service-unanswered", title: `${service} has not answered for ${seconds} s` });
    this.service = service;
    this.seconds = seconds;
    this.changes = changes;
  }
}

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

/** Send a request, and return what `read` makes of the response. */
async function send(service, path, { secondsMax = READ_SECONDS_MAX, ...init }, read) {
  const limit = AbortSignal.timeout(secondsMax * 1000);
  try {
    return await read(await answered(service, path, { ...init, signal: init.signal ? AbortSignal.any([init.signal, limit]) : limit }));
  } catch (error) {
    if (error instanceof Problem || init.signal?.aborted) throw error;
    throw limit.aborted ? new Unanswered(service, secondsMax, init.method !== undefined) : new Problem(0, { type: "console-unreachable", title: "console-unreachable" });
  }
}

async function answered(service, path, init, isAgain = false) {
  const response = await fetch(address(service, path), { ...init, headers: requestHeaders(init.headers) });
  if (!response.ok) {
    const problem = await problemOf(response);
    if (problem.slug !== "csrf-token-missing" || isAgain) throw problem;
    await loadSession(); // Another tab has logged in again.
    return answered(service, path, init, true);
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
  return send(service, path, { signal: abort }, (response) => response.json());
}

export async function getText(service, path, { secondsMax } = {}) {
  return send(service, path, { secondsMax }, (response) => response.text());
}

/** Return the answer and its entity tag. */
export async function getTagged(service, path) {
  return send(service, path, {}, async (response) => ({ value: await response.json(), tag: response.headers.get("etag") }));
}

/** Change something. The same `key` sent again gets the answer of the first time. */
export async function change(method, service, path, body, { key, ifMatch } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key && method === "POST") headers["Idempotency-Key"] = `"${key}"`;
  if (ifMatch) headers["If-Match"] = ifMatch;
  const init = { method, headers, body: body === undefined ? undefined : JSON.stringify(body), secondsMax: CHANGE_SECONDS_MAX };
  return send(service, path, init, (response) => (response.status === 204 ? null : response.json()));
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
