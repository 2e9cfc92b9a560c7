// A form from a JSON schema: groups, lists of cards that can be reordered, variants, and plain controls with their help.

import { control, lines, noted } from "./controls.js";
import { button, field, fill, h, menu, say, unique } from "./dom.js";
import { short, worded } from "./format.js";
import { fresh, resolved, shape, simple } from "./schema.js";

/**
 * A form that edits `value` in place.
 *
 * @param changed called after each change
 * @param suggest (name of a field) -> texts that are likely there
 */
export function form({ schema, value, changed, suggest = () => [] }) {
  const places = new Map(); // path -> {control, note}
  const ctx = { root: schema, changed, suggest, places, lists: new Map() };
  const node = h("div", { class: "form" });
  const draw = () => {
    places.clear();
    fill(node, properties(ctx, resolved(schema, schema), value, ""));
  };
  draw();

  /** Show faults [{where: "a.0.b", what, hint}] beside what they are about; returns those that have no place here. */
  function mark(faults) {
    for (const one of places.values()) {
      one.control.removeAttribute("aria-invalid");
      one.note.textContent = "";
      one.note.hidden = true;
    }
    return faults.filter((fault) => {
      const place = nearest(fault.where ?? "");
      if (!place) return true;
      place.control.setAttribute("aria-invalid", "true");
      place.note.textContent = [place.note.textContent, fault.what, fault.hint].filter(Boolean).join(" · ");
      place.note.hidden = false;
      return false;
    });
  }

  function nearest(where) {
    for (let path = where; path; path = path.includes(".") ? path.slice(0, path.lastIndexOf(".")) : "") {
      if (places.has(path)) return places.get(path);
    }
    return null;
  }
  return { node, mark, draw };
}

const under = (path, key) => (path ? `${path}.${key}` : String(key));

function properties(ctx, schema, owner, path) {
  return Object.entries(schema.properties).map(([key, one]) =>
    part(ctx, one, owner, key, under(path, key), schema.required?.includes(key)),
  );
}

/** One property, whatever it is. */
function part(ctx, given, owner, key, path, required = false) {
  const found = shape(given, ctx.root);
  if (found.kind === "fixed") return null;
  if (simple(found.kind)) return control(ctx, found, owner, key, path, required);
  if (found.kind === "array" && simple(shape(found.items, ctx.root).kind)) return lines(ctx, found, owner, key, path);
  const head = unique("group");
  const help = found.schema.description ? h("p", { class: "help" }, short(found.schema.description, 200)) : null;
  const body = h("div", {});
  const node = h(
    "section",
    { class: "group", "aria-labelledby": head },
    h("h2", { id: head, tabindex: "-1" }, worded(key)),
    help,
    body,
  );
  const drawers = { array: list, map: mapping, union: variant, object: group };
  const draw = () => {
    if (found.nullable && (owner[key] === undefined || owner[key] === null)) {
      fill(
        body,
        button(
          `Add ${worded(key).toLowerCase()}`,
          () => {
            owner[key] = fresh(given, ctx.root, ctx.suggest, key);
            ctx.changed();
            draw();
            node.querySelector("h2").focus();
          },
          { drawing: "add", kind: "quiet" },
        ),
      );
      return;
    }
    fill(
      body,
      drawers[found.kind](ctx, found, owner, key, path),
      found.nullable
        ? button(
            `Remove ${worded(key).toLowerCase()}`,
            () => {
              delete owner[key];
              ctx.changed();
              draw();
              node.querySelector("button")?.focus();
            },
            { drawing: "remove", kind: "quiet" },
          )
        : null,
    );
  };
  noted(ctx, path, node.querySelector("h2"), node);
  draw();
  return node;
}

// -- groups

function group(ctx, found, owner, key, path) {
  owner[key] ??= fresh(found.schema, ctx.root, ctx.suggest, key);
  return h("div", { class: "fields" }, properties(ctx, found.schema, owner[key], path));
}

function variant(ctx, found, owner, key, path) {
  const { tag, variants, schema } = found;
  const body = h("div", { class: "fields" });
  const now = () => owner[key] ?? schema.default ?? {};
  const draw = () => {
    const one = variants.find((each) => each.value === now()[tag]) ?? variants[0];
    about.textContent = one.about;
    owner[key] ??= structuredClone(now());
    fill(body, properties(ctx, one.schema, owner[key], path));
  };
  const about = h("small", { class: "help" });
  const choice = menu(
    variants.map((one) => [one.value, worded(one.name, true)]),
    now()[tag],
    (value) => {
      owner[key] = fresh(variants.find((one) => one.value === value).schema, ctx.root, ctx.suggest, key);
      ctx.changed();
      draw();
    },
  );
  const node = h("div", { class: "variant" }, h("div", {}, field("Kind", choice), about), body);
  draw();
  return node;
}

/** Cards, one an element, that can be added, removed and moved. */
function list(ctx, found, owner, key, path) {
  const items = shape(found.items, ctx.root);
  const { minItems = 0, maxItems = Infinity } = found.schema;
  const cards = h("ol", { class: "stages" });
  const foot = h("div", { class: "row" });
  const all = () => owner[key] ?? [];
  const named = (one) => (items.kind === "union" ? one[items.tag] : worded(key).toLowerCase());

  function put(elements) {
    owner[key] = elements;
    if (!elements.length && !minItems) delete owner[key];
    ctx.changed();
  }

  function move(from, to) {
    const elements = [...all()];
    if (to < 0 || to >= elements.length || from === to) return;
    const [moved] = elements.splice(from, 1);
    elements.splice(to, 0, moved);
    put(elements);
    draw();
    const card = cards.children[to];
    (
      card.querySelector(to > from ? "[data-move=down]:not(:disabled)" : "[data-move=up]:not(:disabled)") ??
      card.querySelector("[data-move]:not(:disabled)")
    )?.focus();
    say(`${named(moved)} is at place ${to + 1} of ${elements.length}.`);
  }

  function remove(at) {
    const gone = all()[at];
    put(all().filter((_, place) => place !== at));
    draw();
    (
      cards.children[Math.min(at, cards.children.length - 1)]?.querySelector("[data-move=remove]") ??
      foot.querySelector("button")
    )?.focus();
    say(`${named(gone)} is removed.`);
  }

  function add(element) {
    put([...all(), element]);
    draw();
    cards.lastChild.querySelector("input, select, textarea, button")?.focus();
  }

  function card(one, at, n) {
    const variant =
      items.kind === "union"
        ? (items.variants.find((each) => each.value === one[items.tag]) ?? items.variants[0])
        : null;
    const { schema, about } = variant ?? { schema: items.schema, about: "" };
    const name = `${named(one)} ${at + 1}`;
    const act = (label, drawing, to, off, kind) =>
      button(`${label} ${name}`, to, { drawing, alone: true, kind: "round", disabled: off, "data-move": kind });
    const title = h(
      "h3",
      { tabindex: "-1" },
      variant ? worded(variant.name, true) : `${at + 1}. ${one.system ?? worded(key)}`,
    );
    const node = h(
      "li",
      {
        class: "stage",
        on: {
          dragover: (event) => {
            if (ctx.dragged?.list === cards) event.preventDefault();
          },
          drop: (event) => {
            if (ctx.dragged?.list === cards) {
              event.preventDefault();
              move(ctx.dragged.at, at);
            }
          },
        },
      },
      h(
        "div",
        {
          class: "stage-head",
          draggable: n > 1 ? "true" : null,
          on: {
            dragstart: (event) => {
              ctx.dragged = { list: cards, at };
              event.dataTransfer.effectAllowed = "move";
              event.dataTransfer.setData("text/plain", name);
            },
            dragend: () => {
              ctx.dragged = null;
            },
          },
        },
        h("div", {}, title, about ? h("small", { class: "help" }, about) : null),
        h(
          "div",
          { class: "stage-acts" },
          act("Move up", "up", () => move(at, at - 1), at === 0, "up"),
          act("Move down", "down", () => move(at, at + 1), at === n - 1, "down"),
          act("Remove", "remove", () => remove(at), n <= minItems, "remove"),
        ),
      ),
      h("div", { class: "fields" }, properties(ctx, schema, one, under(path, at))),
    );
    return noted(ctx, under(path, at), title, node);
  }

  function draw() {
    for (const known of ctx.places.keys()) if (known.startsWith(`${path}.`)) ctx.places.delete(known);
    const elements = all();
    fill(
      cards,
      elements.map((one, at) => card(one, at, elements.length)),
    );
    cards.hidden = !elements.length;
    if (elements.length >= maxItems) {
      fill(foot, h("p", { class: "help" }, `At most ${maxItems}.`));
    } else if (items.kind === "union") {
      let chosen = items.variants[0];
      const pick = menu(
        items.variants.map((one) => [one.value, `${worded(one.name, true)}: ${short(one.about, 60)}`]),
        chosen.value,
        (value) => {
          chosen = items.variants.find((one) => one.value === value);
        },
        { "aria-label": `What to add to ${worded(key).toLowerCase()}` },
      );
      fill(
        foot,
        pick,
        button("Add", () => add(fresh(chosen.schema, ctx.root, ctx.suggest, key)), {
          drawing: "add",
          "aria-label": `Add to ${worded(key).toLowerCase()}`,
        }),
      );
    } else {
      const unused = (name) => ctx.suggest(name).filter((text) => !all().some((one) => one[name] === text));
      fill(
        foot,
        button("Add", () => add(fresh(items.schema, ctx.root, unused, key)), {
          drawing: "add",
          "aria-label": `Add to ${worded(key).toLowerCase()}`,
        }),
      );
    }
  }
  draw();
  return h("div", {}, cards, foot);
}

/** Pairs of a name and a value. */
function mapping(ctx, found, owner, key, path) {
  const rows = h("div", { class: "pairs" });
  const all = () => owner[key] ?? {};
  const put = (whole) => {
    owner[key] = whole;
    if (!Object.keys(whole).length) delete owner[key];
    ctx.changed();
  };
  const fresher = (to) =>
    Object.fromEntries(Object.entries(all()).map(([name, value]) => [name === to.from ? to.name : name, value]));
  function draw() {
    fill(
      rows,
      Object.keys(all()).map((name) => {
        const label = h("input", {
          type: "text",
          value: name,
          "aria-label": `Name in ${worded(key).toLowerCase()}`,
          on: {
            change: () => {
              if (label.value && !(label.value in all())) {
                put(fresher({ from: name, name: label.value }));
                draw();
              } else label.value = name;
            },
          },
        });
        const inner = part(
          ctx,
          { ...resolved(found.values, ctx.root), title: name },
          owner[key],
          name,
          under(path, name),
          true,
        );
        return h(
          "div",
          { class: "pair-row" },
          label,
          inner,
          button(
            `Remove ${name}`,
            () => {
              put(Object.fromEntries(Object.entries(all()).filter(([one]) => one !== name)));
              draw();
              foot.focus();
            },
            { drawing: "remove", alone: true, kind: "round" },
          ),
        );
      }),
    );
  }
  const foot = button(
    "Add",
    () => {
      let name = "name";
      for (let n = 2; name in all(); n += 1) name = `name-${n}`;
      put({ ...all(), [name]: fresh(found.values, ctx.root, ctx.suggest, key) });
      draw();
      rows.lastChild.querySelector("input").select();
    },
    { drawing: "add", kind: "quiet", "aria-label": `Add to ${worded(key).toLowerCase()}` },
  );
  draw();
  return h("div", {}, rows, foot);
}
