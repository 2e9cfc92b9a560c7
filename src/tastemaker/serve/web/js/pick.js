// Where a new person begins: a shelf of covers to pick from, or a user that the system knows.

import { ask, dropped, part, query } from "./api.js";
import { cover } from "./cover.js";
import { button, fill, h, linkButton, notice, say, settled, trouble } from "./dom.js";
import { count, facts, short } from "./format.js";
import { go, link, pack, unpack } from "./router.js";
import { keep, personParams, setPerson, systemOf, titleOf } from "./store.js";
import { userField } from "./who.js";

const SHELF = 24;

export const title = () => "What do you like?";

export async function open(root, route, signal) {
  const system = await systemOf(route.params.get("system"));
  if (system === null) {
    fill(
      root,
      h("h1", { tabindex: "-1" }, "Welcome"),
      notice(
        "Nothing is served yet",
        "Once a system that answers with lists is served, they can be tried here.",
        h("pre", {}, "tastemaker serve BUNDLE"),
      ),
    );
    return {};
  }
  const named = route.params.get("system");
  const hidden = unpack(route.params.get("without"));
  let picked = unpack(route.params.get("with"));
  let cursor = null;
  const shelf = h("ul", { class: "shelf" });
  const search = h("input", {
    type: "search",
    placeholder: `Search ${count(system.items, "item")}`,
    "aria-label": "Search the catalogue",
  });
  const status = h("p", { class: "soft", "aria-live": "polite" });
  const more = button("Show more", () => load(true), { kind: "wide" });
  const bar = h("div", { class: "pickbar", role: "region", "aria-label": "What you picked" });

  function card(one) {
    const name = titleOf(one);
    const node = h(
      "button",
      {
        type: "button",
        class: "pick",
        "aria-pressed": String(picked.includes(String(one.item))),
        "data-item": one.item,
        on: { click: () => turn(String(one.item), name) },
      },
      cover(one.item, one.columns),
      h("span", { class: "pick-title" }, short(name, 60)),
      h("span", { class: "soft small" }, facts(one.columns).slice(0, 2).join(" · ")),
    );
    return h("li", {}, node);
  }

  function turn(id, name) {
    const was = picked.includes(id);
    picked = was ? picked.filter((one) => one !== id) : [...picked, id];
    for (const node of shelf.querySelectorAll(".pick"))
      node.setAttribute("aria-pressed", String(picked.includes(node.dataset.item)));
    history.replaceState(null, "", link("pick", { system: named, with: pack(picked), without: pack(hidden) }));
    say(`${was ? "Took out" : "Picked"} ${name}. ${count(picked.length, "item")} picked.`);
    drawBar();
  }

  function drawBar() {
    bar.hidden = picked.length === 0;
    fill(
      bar,
      h(
        "p",
        {},
        h("b", {}, count(picked.length, "pick")),
        h("span", { class: "soft" }, picked.length < 3 ? " A few more make a better list." : ""),
      ),
      button(
        "Clear",
        () => {
          picked.slice().forEach((id) => turn(id, id));
          search.focus();
        },
        { kind: "quiet" },
      ),
      linkButton("Show my list", link("try", { system: named, ...personParams({ liked: picked, hidden }) }), {
        kind: "main",
      }),
    );
  }

  let waiting = new AbortController();
  signal.addEventListener("abort", () => waiting.abort());
  async function load(further = false) {
    waiting.abort();
    waiting = new AbortController();
    const find = search.value.trim();
    try {
      let found;
      if (!find && !further) found = await popular(waiting.signal);
      else
        found = await ask(
          `/items${query({ system: system.name, find, limit: SHELF, cursor: further ? cursor : null })}`,
          { signal: waiting.signal },
        );
      keep(found.items, system.name);
      cursor = found.next;
      const nodes = found.items.map(card);
      if (further) shelf.append(...nodes);
      else fill(shelf, nodes);
      if (further) nodes[0]?.querySelector("button").focus();
      status.textContent = find ? `${count(found.total, "item")} with “${find}”.` : "";
      if (find && !found.total) status.textContent = `Nothing in the catalogue has “${find}” in its title or id.`;
      more.hidden = !found.next && Boolean(find);
      more.firstChild.textContent = find ? "Show more" : "Browse the whole catalogue";
    } catch (problem) {
      if (!dropped(problem))
        fill(
          shelf,
          h(
            "li",
            { class: "whole" },
            trouble(problem, () => load(further)),
          ),
        );
    }
  }

  async function popular(within) {
    try {
      const found = await ask(`/systems/${part(system.name)}/sample${query({ users: 0, items: SHELF })}`, {
        signal: within,
      });
      return { items: found.items, total: system.items, next: null };
    } catch (problem) {
      if (!problem.absent) throw problem;
      return ask(`/items${query({ system: system.name, limit: SHELF })}`, { signal: within });
    }
  }

  search.addEventListener(
    "input",
    settled(() => load(), 220),
  );
  fill(
    root,
    h(
      "div",
      { class: "hero" },
      h(
        "div",
        {},
        h("h1", { tabindex: "-1" }, "What do you like?"),
        h("p", { class: "lead" }, "Pick a few things, and see what would be recommended to you."),
      ),
      h(
        "div",
        { class: "aside-card" },
        h("h2", {}, "Or be somebody else"),
        userField(
          () => system,
          (user) => go(link("try", { system: named, user })),
        ).node,
      ),
    ),
    h(
      "div",
      { class: "searchrow" },
      search,
      button(
        "Shuffle",
        () => {
          search.value = "";
          load();
        },
        { drawing: "dice", kind: "soft-button" },
      ),
    ),
    status,
    shelf,
    more,
    bar,
  );
  setPerson(picked.length ? { liked: picked, hidden } : null);
  drawBar();
  fill(
    shelf,
    Array.from({ length: SHELF }, () =>
      h(
        "li",
        { class: "ghost" },
        h("span", { class: "pick" }, h("span", { class: "cover" }), h("span", { class: "line" })),
      ),
    ),
  );
  await load();
  return {};
}
