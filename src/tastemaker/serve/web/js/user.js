// The page of a user: what was chosen, what is hidden, what that says of the taste.

import { ask, part, query } from "./api.js";
import { tile } from "./cards.js";
import { button, fill, h, linkButton, notice, toast } from "./dom.js";
import { count } from "./format.js";
import { link } from "./router.js";
import { setPerson, systemOf, tell, titleOf } from "./store.js";

const SHOWN = 60;

export const title = (route) => `User ${route.id}`;

export async function open(root, route, signal) {
  const system = await systemOf(route.params.get("system"));
  if (system === null) throw new Error("Nothing is served yet.");
  const found = await ask(`/users/${part(route.id)}${query({ system: system.name, limit: SHOWN })}`, { signal });
  const user = String(found.user);
  setPerson({ user });
  const address = (id) => link("item", { system: route.params.get("system"), user }, id);
  const hidden = h("section", {});
  fill(
    root,
    h(
      "div",
      { class: "headrow" },
      h(
        "div",
        {},
        h("h1", { tabindex: "-1" }, user),
        h(
          "p",
          { class: "soft" },
          found.known
            ? `${system.name} was fitted with this user.`
            : `${system.name} was fitted without this user, who came later.`,
        ),
      ),
      h(
        "div",
        { class: "row" },
        linkButton("See the list", link("try", { system: route.params.get("system"), user }), { kind: "main" }),
        linkButton("Compare systems", link("compare", { user }), { kind: "soft-button" }),
      ),
    ),
    tastes(found.history),
    h(
      "section",
      {},
      h("h2", {}, found.history.length === SHOWN ? `Chosen, the latest ${SHOWN}` : "Chosen, the latest first"),
      found.history.length
        ? h(
            "ul",
            { class: "tiles" },
            found.history.map((one) => tile(one, { address })),
          )
        : notice("Nothing yet", "This user has chosen nothing so far."),
    ),
    hidden,
  );
  drawHidden(found.hidden);

  function drawHidden(items) {
    fill(
      hidden,
      items.length
        ? [
            h("h2", {}, "Hidden"),
            h(
              "ul",
              { class: "tiles" },
              items.map((one) =>
                tile(one, {
                  address,
                  action: button("Show again", () => again(one, items), {
                    kind: "quiet",
                    "aria-label": `Show ${titleOf(one)} again`,
                  }),
                }),
              ),
            ),
          ]
        : null,
    );
  }

  async function again(one, items) {
    try {
      await tell("undo", one.item);
    } catch (problem) {
      toast(`That was not stored: ${problem.message}`);
      return;
    }
    drawHidden(items.filter((each) => each !== one));
    toast(`${titleOf(one)} may be shown again.`);
  }
  return {};
}

/** The most frequent categories of what was chosen, as bars. */
function tastes(history) {
  const name = Object.entries(history[0]?.columns ?? {}).find(
    ([, value]) => Array.isArray(value) && typeof value[0] === "string",
  )?.[0];
  if (!name) return null;
  const counts = new Map();
  for (const one of history)
    for (const value of one.columns[name] ?? []) counts.set(value, (counts.get(value) ?? 0) + 1);
  const top = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 6);
  if (!top.length) return null;
  return h(
    "section",
    { class: "tastes" },
    h("h2", {}, "Mostly"),
    h(
      "ul",
      { class: "bars" },
      top.map(([value, n]) =>
        h(
          "li",
          {},
          h("span", { class: "bars-name" }, value),
          h(
            "span",
            { class: "bar", "aria-hidden": "true" },
            h("i", { style: { "inline-size": `${(100 * n) / top[0][1]}%` } }),
          ),
          h("span", { class: "soft" }, count(n, "item")),
        ),
      ),
    ),
  );
}
