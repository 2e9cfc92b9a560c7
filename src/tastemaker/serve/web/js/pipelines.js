// Pipelines: those that are served, and the way to the editor of one.

import { ask, dropped } from "./api.js";
import { fill, h, linkButton, notice, trouble } from "./dom.js";
import { edit } from "./editor.js";
import { count, listed } from "./format.js";
import { link } from "./router.js";

export const NEW = "+"; // no pipeline may be called so

export const title = (route) => (route.id === NEW ? "New pipeline" : route.id ? `Pipeline ${route.id}` : "Pipelines");

export async function open(root, route, signal) {
  let found;
  try {
    found = await ask("/pipelines", { signal });
  } catch (problem) {
    if (dropped(problem)) throw problem;
    fill(
      root,
      h("h1", { tabindex: "-1" }, "Pipelines"),
      problem.absent
        ? notice(
            "No pipelines here",
            "This server was started without them. A pipeline puts several systems to work on one list.",
          )
        : trouble(problem, () => open(root, route, signal)),
    );
    return {};
  }
  if (route.id) {
    const known = found.pipelines.find((one) => one.name === route.id);
    if (!known && route.id !== NEW) {
      fill(
        root,
        h("h1", { tabindex: "-1" }, route.id),
        notice(
          "No such pipeline",
          `There is none of the name ${route.id}.`,
          linkButton("All pipelines", link("pipelines")),
        ),
      );
      return {};
    }
    return edit(root, { name: route.id, known, found, signal });
  }
  const make = linkButton("New pipeline", link("pipelines", {}, NEW), { kind: "main", drawing: "add" });
  fill(
    root,
    h(
      "div",
      { class: "headrow close" },
      h(
        "div",
        {},
        h("h1", { tabindex: "-1" }, "Pipelines"),
        h(
          "p",
          { class: "soft" },
          "Several systems at work on one list: who nominates, what is filtered, how it is put in order.",
        ),
      ),
      found.shelf.length ? make : null,
    ),
    found.pipelines.length
      ? h("ul", { class: "trials" }, found.pipelines.map(card))
      : notice(
          "No pipeline yet",
          found.shelf.length
            ? `The ${count(found.shelf.length, "system")} on the shelf can be put together: ${listed(found.shelf, 5)}.`
            : "There is no system on the shelf to make one of.",
        ),
  );
  return {};
}

function card({ name, spec, served }) {
  return h(
    "li",
    { class: "trial" },
    h(
      "h3",
      {},
      h("a", { href: link("pipelines", {}, name) }, name),
      " ",
      h("span", { class: `tag ${served ? "" : "off"}` }, served ? "served" : "not served"),
    ),
    spec.title ? h("p", {}, spec.title) : null,
    h("p", { class: "soft small" }, stages(spec)),
    served
      ? h(
          "p",
          { class: "small links" },
          h("a", { href: link("pipelines", {}, name) }, "Edit"),
          h("a", { href: link("try", { system: name }) }, "Try"),
        )
      : null,
  );
}

/** A pipeline in a line of words, whatever its stages are called. */
export function stages(spec) {
  return Object.entries(spec)
    .filter(([key, value]) => typeof value === "object" && value !== null && key !== "systems")
    .map(([key, value]) => {
      const parts = (Array.isArray(value) ? value : [value]).map((one) => one?.system ?? one?.kind).filter(Boolean);
      return parts.length ? `${key} ${parts.join(" + ")}` : null;
    })
    .filter(Boolean)
    .join(" → ");
}
