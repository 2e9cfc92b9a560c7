// What several views share: the systems that are served, who the lists are for, what was done in this visit.

import { ask, fresh, part } from "./api.js";
import { pack, unpack } from "./router.js";

const VISIT = "tastemaker-visit";

/** Names this visit in the server's log. */
export const visit = (() => {
  const known = sessionStorage.getItem(VISIT) ?? `web-${fresh()}`;
  sessionStorage.setItem(VISIT, known);
  return known;
})();

// -- systems

let served = null;
/** What is served; asked for once, or anew. */
export function systems({ anew = false } = {}) {
  if (anew || served === null) {
    served = ask("/systems");
    served.catch(() => {
      served = null;
    });
  }
  return served;
}

/** Those that answer with lists, the default one first. */
export async function listing() {
  const { systems: all, default: first } = await systems();
  const able = all.filter((one) => one.capabilities.includes("recommend"));
  return { systems: able, default: able.find((one) => one.name === first)?.name ?? able[0]?.name ?? null };
}

/** Those that hold conversations. */
export async function conversing() {
  const { systems: all } = await systems();
  return all.filter((one) => one.capabilities.includes("act"));
}

/** The system of a name, or the default one; null where none answers with lists. */
export async function systemOf(name = null) {
  const { systems: all, default: first } = await listing();
  return all.find((one) => one.name === (name ?? first)) ?? all[0] ?? null;
}

const columnsKept = new Map();
/** The catalogue's columns with their ranges and values; none where the server does not tell. */
export function columnsOf(system) {
  const key = `${system.name} ${system.snapshot}`;
  if (!columnsKept.has(key)) {
    const found = ask(`/systems/${part(system.name)}/columns`).then((answer) => answer.columns);
    found.catch(() => columnsKept.delete(key));
    columnsKept.set(key, found);
  }
  return columnsKept.get(key);
}

// -- items

const known = new Map(); // "system id" -> {item, title, columns}
const MOST_KNOWN = 3000;
const LOOKED_UP = 200;

/** Items by id, as a map from id to {item, title, columns}; those that were seen before are not asked for again. */
export async function itemsOf(ids, system, signal) {
  const key = (id) => `${system}\n${id}`;
  const missing = [...new Set(ids.map(String))].filter((id) => !known.has(key(id)));
  for (let at = 0; at < missing.length; at += LOOKED_UP) {
    const some = missing.slice(at, at + LOOKED_UP);
    const answer = await ask("/items/lookup", { body: { items: some, system }, signal });
    answer.items.forEach((one, place) => known.set(key(some[place]), one));
  }
  const found = new Map(ids.map((id) => [String(id), known.get(key(id)) ?? { item: id, title: null, columns: {} }]));
  while (known.size > MOST_KNOWN) known.delete(known.keys().next().value);
  return found;
}

/** Remember items that came by another way. */
export function keep(items, system) {
  for (const one of items) known.set(`${system}\n${one.item}`, one);
}

/** What an item is called. */
export const titleOf = (one) => one?.title || String(one?.item ?? "");

// -- people

/** Somebody the system knows {user}, or somebody new {liked: [ids], hidden: [ids]}; null: nobody yet. */
export function personOf(params) {
  if (params.get("user")) return { user: params.get("user") };
  const liked = unpack(params.get("with"));
  return liked.length ? { liked, hidden: unpack(params.get("without")) } : null;
}

/** Parameters of an address that name a person. */
export function personParams(person) {
  if (person === null) return {};
  if (person.user !== undefined) return { user: person.user };
  return { with: pack(person.liked), without: pack(person.hidden) };
}

/** The fields of a question that say for whom it is. */
export function asker(person) {
  if (person === null) return {};
  return person.user !== undefined ? { user: person.user } : { history: person.liked };
}

let current = null;
export const person = () => current;
/** The lists are for this person from now on; the menu's links follow. */
export function setPerson(one) {
  current = one;
  dispatchEvent(new CustomEvent("person"));
}

// -- what was done

const EVENTS = { like: "like", hide: "hide", undo: "undo" };

/** What somebody does with an item, as the server is told of it. What a new person does is told of the visit alone. */
export function eventOf(kind, item, { slate = null, position = null } = {}) {
  const who = current?.user !== undefined ? { user: current.user } : {};
  const event = { kind: EVENTS[kind] ?? kind, item: String(item), session: visit, key: fresh(), ...who };
  if (slate !== null) event.slate = slate;
  if (position !== null) event.position = position;
  return event;
}

/** Tell the server of events; one that is sent twice counts once. */
export const send = (...events) => ask("/feedback", { body: { events } });

/** Tell the server what somebody did with an item. */
export const tell = (kind, item, shown) => send(eventOf(kind, item, shown));
