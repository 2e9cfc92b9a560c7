// For whom: fields and names that several views use.

import { ask, part, query } from "./api.js";
import { button, h, linkButton, toast } from "./dom.js";
import { listed } from "./format.js";
import { picker } from "./picker.js";
import { link, pack } from "./router.js";
import { itemsOf, keep, titleOf } from "./store.js";

const OFFERED = 8;

/** Search among the users of a system. */
export const findUsers = (system) => async (text, signal) => {
  const answer = await ask(`/users${query({ system: system.name, find: text, limit: OFFERED })}`, { signal });
  return { total: answer.total, options: answer.users.map((user) => ({ value: user, label: String(user) })) };
};

/** Search in the catalogue of a system. */
export const findItems = (system) => async (text, signal) => {
  const answer = await ask(`/items${query({ system: system.name, find: text, limit: OFFERED })}`, { signal });
  keep(answer.items, system.name);
  return {
    total: answer.total,
    options: answer.items.map((one) => ({
      value: one.item,
      label: titleOf(one),
      detail: one.title ? String(one.item) : null,
      item: one.item,
      columns: one.columns,
    })),
  };
};

/** A user drawn by chance. */
export async function someUser(system) {
  const found = await ask(`/systems/${part(system.name)}/sample${query({ users: 1 })}`);
  return found.users[0] ?? null;
}

/** A field to find a user, and a button for chance; `system()` is the one that knows them. */
export function userField(system, choose, value = "") {
  const { node, input } = picker({
    label: "User",
    find: (text, signal) => findUsers(system())(text, signal),
    choose: (option) => choose(String(option.value)),
    placeholder: "Part of an id",
    value,
  });
  const chance = button(
    "Random user",
    async () => {
      chance.disabled = true;
      try {
        const user = await someUser(system());
        if (user === null) toast("This system knows no users.");
        else choose(String(user));
      } catch (problem) {
        toast(problem.message);
      } finally {
        chance.disabled = false;
      }
    },
    { drawing: "dice", kind: "soft-button" },
  );
  return { node: h("div", { class: "who" }, node, chance), input };
}

/** What a person is called in a heading; titles of what a new person likes are looked up. */
export async function nameOf(person, system, signal) {
  if (person.user !== undefined) return person.user;
  const found = await itemsOf(person.liked, system.name, signal).catch(() => new Map());
  return `somebody who likes ${listed(
    person.liked.map((id) => titleOf(found.get(String(id)) ?? { item: id })),
    person.liked.length > 2 ? 1 : 2,
  )}`;
}

/** The items a new person was made of, each with a button that takes it out. */
export async function made(person, system, address, signal) {
  const found = await itemsOf([...person.liked, ...person.hidden], system.name, signal).catch(() => new Map());
  const called = (id) => titleOf(found.get(String(id)) ?? { item: id });
  const without = (ids, id) => ids.filter((one) => one !== id);
  const chip = (id, next, words, drawing) =>
    h(
      "li",
      {},
      h("span", {}, called(id)),
      next === null
        ? null
        : h(
            "a",
            { class: "chip-act", href: next, "aria-label": `${words} ${called(id)}`, title: `${words} ${called(id)}` },
            drawing,
          ),
    );
  return h(
    "div",
    { class: "made" },
    h("p", { class: "label" }, "Likes"),
    h(
      "ul",
      { class: "picked" },
      person.liked.map((id) => chip(id, address({ ...person, liked: without(person.liked, id) }), "Take out", "×")),
    ),
    person.hidden.length ? h("p", { class: "label" }, "Does not want") : null,
    person.hidden.length
      ? h(
          "ul",
          { class: "picked" },
          person.hidden.map((id) =>
            chip(id, address({ ...person, hidden: without(person.hidden, id) }), "Show again", "×"),
          ),
        )
      : null,
    linkButton(
      "Pick more",
      link("pick", { system: system.name, with: pack(person.liked), without: pack(person.hidden) }),
      { drawing: "add", kind: "soft-button" },
    ),
  );
}
