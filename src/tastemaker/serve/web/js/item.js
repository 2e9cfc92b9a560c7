// The page of an item: all that is known of it, what lies near it, and what a person would make of it.

import { ask, dropped, part, query } from "./api.js";
import { tile } from "./cards.js";
import { cover } from "./cover.js";
import { button, fill, h, linkButton, menu, toast, trouble } from "./dom.js";
import { aboutOf, cell, facts, figure, worded } from "./format.js";
import { go, link } from "./router.js";
import { asker, itemsOf, keep, listing, personOf, personParams, setPerson, systemOf, tell, titleOf } from "./store.js";

const NEAR = 12;

export const title = (route) => route.id;

export async function open(root, route, signal) {
  const { systems: all } = await listing();
  const system = await systemOf(route.params.get("system"));
  if (system === null) throw new Error("Nothing is served yet.");
  const person = personOf(route.params);
  setPerson(person);
  const one = await ask(`/items/${part(route.id)}${query({ system: system.name })}`, { signal });
  keep([one], system.name);
  document.title = `${titleOf(one)} · Tastemaker`;
  const about = aboutOf(one.columns);
  const skipped = new Set([about, "title", "name"]);
  const rows = Object.entries(one.columns)
    .map(([name, value]) => [name, cell(name, value)])
    .filter(([name, value]) => value !== null && !skipped.has(name));
  const near = h("div", {});
  const opinion = h("div", { class: "opinion" });
  const here = (changes) => link("item", { ...Object.fromEntries(route.params), ...changes }, route.id);
  fill(
    root,
    h(
      "article",
      { class: "item" },
      cover(String(one.item), one.columns, { eager: true }),
      h(
        "div",
        {},
        h("h1", { tabindex: "-1" }, titleOf(one)),
        h("p", { class: "facts" }, facts(one.columns).join(" · ")),
      ),
      h(
        "div",
        { class: "item-rest" },
        about ? h("p", { class: "lead" }, one.columns[about]) : null,
        acts(one, person, system),
        opinion,
        h("h2", {}, "In the catalogue"),
        h(
          "dl",
          { class: "columns" },
          h("div", {}, h("dt", {}, "Id"), h("dd", {}, h("code", {}, String(one.item)))),
          rows.map(([name, value]) => h("div", {}, h("dt", {}, worded(name)), h("dd", {}, value))),
        ),
      ),
    ),
    h("section", { class: "near" }, h("div", { class: "headrow" }, h("h2", {}, "Close to it"), whose()), near),
  );

  function whose() {
    const able = all.filter((each) => each.capabilities.includes("similar"));
    if (able.length < 2) return null;
    return h(
      "label",
      { class: "inline" },
      h("span", {}, "according to "),
      menu(
        able.map((each) => [each.name, each.name]),
        system.name,
        (name) => go(here({ system: name })),
      ),
    );
  }

  async function neighbours() {
    if (!system.capabilities.includes("similar")) {
      fill(near, h("p", { class: "soft" }, `${system.name} knows what people like, and not what lies near an item.`));
      return;
    }
    try {
      const found = await ask("/similar", { body: { item: one.item, k: NEAR, system: system.name }, signal });
      const known = await itemsOf(
        found.items.map((each) => each.item),
        system.name,
        signal,
      ).catch(() => new Map());
      fill(
        near,
        found.items.length
          ? h(
              "ul",
              { class: "tiles" },
              found.items.map((each) =>
                tile(
                  { ...each, columns: known.get(String(each.item))?.columns ?? {} },
                  {
                    address: (id) => link("item", { system: route.params.get("system"), ...personParams(person) }, id),
                  },
                ),
              ),
            )
          : h("p", { class: "soft" }, "Nothing lies near it."),
      );
    } catch (problem) {
      if (!dropped(problem)) fill(near, trouble(problem, neighbours));
    }
  }

  /** What the system says of this item for the person: a score, a reason. */
  async function judged() {
    if (person === null) return;
    const body = { ...asker(person), items: [one.item], system: system.name };
    const can = (name) => system.capabilities.includes(name);
    const [scored, explained] = await Promise.all([
      can("score") ? ask("/score", { body, signal }).catch(() => null) : null,
      can("explain") ? ask("/explain", { body, signal }).catch(() => null) : null,
    ]);
    const score = scored?.items[0]?.score;
    const reason = explained?.reasons[0]?.text;
    if (score === undefined && !reason) return;
    const who = person.user === undefined ? "For the person you made" : `For ${person.user}`;
    fill(
      opinion,
      h(
        "p",
        {},
        h("b", {}, who),
        ": ",
        [score !== undefined ? `${system.name} scores it ${figure(score)}` : null, reason].filter(Boolean).join(". "),
        ".",
      ),
    );
  }

  await Promise.all([neighbours(), judged()]);
  return {};
}

function acts(one, person, system) {
  const name = titleOf(one);
  const id = String(one.item);
  const back = person?.liked ?? [];
  const from = linkButton(
    "A list from this",
    link("try", {
      system: system.name,
      ...personParams({ liked: [...new Set([...back, id])], hidden: person?.hidden ?? [] }),
    }),
    { kind: "main" },
  );
  if (person?.user === undefined) return h("div", { class: "row" }, from);
  const said = (kind, words) =>
    button(
      words,
      async () => {
        try {
          await tell(kind, id);
          toast(`${kind === "like" ? "Liked" : "Hid"} ${name} for ${person.user}.`, async () => {
            await tell("undo", id);
            toast(`Took back: ${name}.`);
          });
        } catch (problem) {
          toast(`That was not stored: ${problem.message}`);
        }
      },
      { drawing: kind === "like" ? "heart" : "hide", kind: "soft-button" },
    );
  return h(
    "div",
    { class: "row" },
    said("like", "Like"),
    said("hide", "Hide"),
    linkButton(`Back to the list of ${person.user}`, link("try", { system: system.name, ...personParams(person) }), {
      kind: "soft-button",
    }),
    from,
  );
}
