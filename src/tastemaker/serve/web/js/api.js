// Asking the server. Errors are `Problem`s with the server's own words; a key is asked for when it wants one.

import { askForKey } from "./key.js";

/** What went wrong: a status (0: no answer came), words, and what to do. */
export class Problem extends Error {
  constructor(status, told = {}) {
    super(told.detail || told.title || `The server answered ${status}.`);
    Object.assign(this, { status, hint: told.hint ?? null, errors: told.errors ?? [], request: told.request ?? null });
    this.title = TITLES[status] ?? "That did not work";
  }

  /** The server has no such thing, which is no fault of anybody's. */
  get absent() {
    return this.status === 404 || this.status === 405;
  }
}

const TITLES = {
  0: "The server cannot be reached",
  401: "This needs a key",
  403: "This key may not do that",
  404: "Not found",
  409: "That came too late",
  429: "The server is busy",
  503: "The server is not ready",
  504: "The answer took too long",
};
const TRIES = 3;
const KEY = "tastemaker-key";

export const forgetKey = () => sessionStorage.removeItem(KEY);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** GET, or POST where there is a body, or another `method`; the answer's JSON. */
export async function ask(path, how = {}) {
  const answer = await answered(path, how);
  return answer.status === 204 ? null : answer.json();
}

/** The events of a turn that is told while it is worked at, as {kind, what}; an error among them is thrown. */
export async function* told(path, body, signal) {
  const answer = await answered(path, { body, signal, accept: "text/event-stream" });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = read(block);
        if (event?.kind === "error") throw new Problem(event.what.status, event.what);
        if (event) yield event;
      }
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The connection broke.", hint: "The last message may not have counted." });
  } finally {
    reader.cancel().catch(() => {});
  }
}

function read(block) {
  const lines = block.split("\n");
  const part = (name) =>
    lines
      .filter((line) => line.startsWith(name))
      .map((line) => line.slice(name.length).trimStart())
      .join("\n");
  const data = part("data:");
  return data ? { kind: part("event:"), what: JSON.parse(data) } : null;
}

async function answered(path, { body, signal, admin = false, method, accept = "application/json" } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const key = sessionStorage.getItem(KEY);
    const answer = await sent(path, { body, key, signal, accept, method });
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    const problem = new Problem(answer.status, told);
    if (answer.status === 401 || (answer.status === 403 && admin)) {
      const given = await keyInstead(key, problem.message);
      if (given === null) throw problem;
      attempt = 0;
      continue;
    }
    const wait = Number(answer.headers.get("retry-after") || 1);
    const mayWait = (answer.status === 429 || answer.status === 503) && wait <= 5;
    if (!mayWait || attempt >= TRIES) throw problem;
    await pause(1000 * wait, signal);
  }
}

async function sent(path, { body, key, signal, accept, method }) {
  const headers = { accept };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  try {
    return await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "No answer came.", hint: "Is it running, and is this device connected?" });
  }
}

let asking = null;
/** Another key than the one that was refused; one question for all requests that wait. */
async function keyInstead(refused, why) {
  const now = sessionStorage.getItem(KEY);
  if (now !== refused && now !== null) return now;
  asking ??= askForKey(refused === null ? null : why).finally(() => {
    asking = null;
  });
  const given = await asking;
  if (given !== null) sessionStorage.setItem(KEY, given);
  return given;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(new DOMException("no longer wanted", "AbortError"));
      },
      { once: true },
    );
  });
}

/** Whether an error only says that nobody waits for the answer any more. */
export const dropped = (error) => error?.name === "AbortError";

/** A name that nobody else uses. */
export function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A part of an address. */
export const part = (id) => encodeURIComponent(String(id));

/** "?a=1&b=2" of what is given. */
export function query(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : "";
}
