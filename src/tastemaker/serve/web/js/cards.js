// A list as cards that keep their identity: when it changes, what stays moves, what is new enters, what goes fades.

import { cover, dress } from "./cover.js";
import { button, h, still } from "./dom.js";
import { facts, figure, short } from "./format.js";
import { link } from "./router.js";
import { titleOf } from "./store.js";

const LEAST = 0.06; // of a score's bar that is always seen
const MOVE = { duration: 420, easing: "cubic-bezier(.2,.7,.2,1)" };
const FADE = { duration: 260, easing: "ease-out" };

/**
 * A list of cards.
 *
 * @param act called with (kind, row): like, undo, hide, similar
 * @param address where the page of an item is
 */
export function cards({ act, address }) {
  const node = h("ol", { class: "cards", role: "list" }); // said again, for what forgets it where no numbers are drawn
  const kept = new Map(); // id -> {li, row, parts}
  let liked = new Set();
  let can = new Set(["like", "hide"]);

  /** Show rows; `changed` marks what is new and what moved. Tells how much that was. */
  function show(rows, { changed = false } = {}) {
    const before = new Map(
      [...kept].map(([id, one]) => [id, { box: one.li.getBoundingClientRect(), rank: one.row.rank }]),
    );
    const wanted = new Set(rows.map((row) => String(row.item)));
    const focused = focusIn();
    const leaving = [...kept].filter(([id]) => !wanted.has(id));
    for (const [id, one] of leaving) {
      kept.delete(id);
      leave(one.li, before.get(id).box);
    }
    const tally = { fresh: 0, moved: 0 };
    const scale = scaled(rows);
    rows.forEach((row, place) => {
      const id = String(row.item);
      const one = kept.get(id) ?? made(row);
      const past = before.get(id);
      update(one, row, scale, changed ? (past ? past.rank - row.rank : null) : 0);
      kept.set(id, one);
      const there = node.children[place];
      if (there !== one.li) node.insertBefore(one.li, there ?? null);
      if (!past) tally.fresh += 1;
      else if (past.rank !== row.rank) tally.moved += 1;
    });
    [...node.querySelectorAll(":scope > .going")].forEach((ghost) => node.append(ghost));
    if (!still()) rows.forEach((row) => move(kept.get(String(row.item)).li, before.get(String(row.item))?.box));
    refocus(focused, wanted, rows);
    return tally;
  }

  function made(row) {
    const title = titleOf(row);
    const id = String(row.item);
    const parts = {
      rank: h("span", { class: "rank" }),
      change: h("span", { class: "change" }),
      facts: h("p", { class: "facts" }),
      why: h("p", { class: "why" }),
      bar: h("i"),
      figure: h("span", { class: "figure" }),
      cover: cover(id, row.columns),
    };
    const does = (kind, words, drawing, more = {}) =>
      button(`${words} ${title}`, () => act(kind === "like" && liked.has(id) ? "undo" : kind, kept.get(id).row), {
        kind: `round ${kind}`,
        drawing,
        alone: true,
        "data-act": kind,
        ...more,
      });
    parts.acts = [
      does("like", "Like", "heart", { "aria-pressed": "false" }),
      does("hide", "Hide", "hide"),
      does("similar", "More like", "more"),
    ];
    parts.links = [
      h("a", { class: "card-cover", tabindex: "-1", "aria-hidden": "true" }, parts.cover),
      h("a", { title: title.length > 60 ? title : null }, title),
    ];
    const li = h(
      "li",
      { class: "card", "data-item": row.item },
      parts.links[0],
      h(
        "div",
        { class: "card-body" },
        h("p", { class: "place" }, parts.rank, parts.change),
        h("h3", {}, parts.links[1]),
        parts.facts,
        parts.why,
        h("div", { class: "score" }, h("span", { class: "bar", "aria-hidden": "true" }, parts.bar), parts.figure),
      ),
      h("div", { class: "card-acts" }, parts.acts),
    );
    return { li, row, parts };
  }

  function update(one, row, scale, change) {
    one.row = row;
    one.li.classList.remove("soon");
    const { parts } = one;
    parts.rank.textContent = row.rank;
    parts.change.textContent = change === null ? "new" : change > 0 ? `▲ ${change}` : change < 0 ? `▼ ${-change}` : "";
    parts.change.className = `change ${change === null ? "fresh" : change > 0 ? "up" : change < 0 ? "down" : ""}`;
    const says = change === null || change === 0 ? null : change > 0 ? `up ${change}` : `down ${-change}`;
    if (says) parts.change.setAttribute("aria-label", says);
    else parts.change.removeAttribute("aria-label");
    parts.bar.style.inlineSize = `${Math.round(100 * scale(row.score))}%`;
    parts.figure.textContent = figure(row.score);
    reason(parts.why, row.reason);
    if (row.columns) details(one, row.columns);
    for (const a of parts.links) a.href = address(row.item);
    for (const node of parts.acts) node.hidden = !can.has(node.dataset.act);
    press(one);
  }

  function press(one) {
    one.parts.acts[0].setAttribute("aria-pressed", String(liked.has(String(one.row.item))));
  }

  function reason(place, why) {
    const text = why?.text ?? "";
    if (place.textContent === text) return;
    const on = why?.because_of?.[0];
    place.replaceChildren(
      on === undefined || !text ? short(text, 160) : h("a", { href: address(on) }, short(text, 160)),
    );
  }

  function details(one, columns) {
    const text = facts(columns).join(" · ");
    if (one.parts.facts.textContent !== text) one.parts.facts.textContent = text;
    dress(one.parts.cover, columns);
  }

  /** Columns of items that came after the list, as a map from id to item. */
  function inform(found) {
    for (const [id, item] of found) {
      const one = kept.get(id);
      if (one) {
        one.row.columns = item.columns;
        details(one, item.columns);
      }
    }
  }

  function move(li, from) {
    if (!from) {
      li.animate(
        [
          { opacity: 0, transform: "translateY(14px) scale(.98)" },
          { opacity: 1, transform: "none" },
        ],
        MOVE,
      );
      return;
    }
    const to = li.getBoundingClientRect();
    const [x, y] = [from.left - to.left, from.top - to.top];
    if (x || y) li.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], MOVE);
  }

  function leave(li, box) {
    if (still() || !box.width) {
      li.remove();
      return;
    }
    const frame = node.getBoundingClientRect();
    const place = {
      position: "absolute",
      left: `${box.left - frame.left}px`,
      top: `${box.top - frame.top}px`,
      width: `${box.width}px`,
      height: `${box.height}px`,
      margin: "0",
    };
    Object.assign(li.style, place);
    li.classList.add("going");
    li.inert = true;
    li.setAttribute("aria-hidden", "true");
    li.animate([{ opacity: 1 }, { opacity: 0, transform: "scale(.94)" }], { ...FADE, fill: "forwards" }).finished.then(
      () => li.remove(),
      () => li.remove(),
    );
  }

  function focusIn() {
    const card = document.activeElement?.closest?.(".card");
    if (!card || !node.contains(card)) return null;
    return {
      id: card.dataset.item,
      act: document.activeElement.dataset.act ?? null,
      place: [...node.children].indexOf(card),
    };
  }

  /** The focus must not fall out of the page with the card that had it: it goes to what took the card's place. */
  function refocus(focused, wanted, rows) {
    if (focused === null || wanted.has(focused.id) || !rows.length) return;
    const next = kept.get(String(rows[Math.min(focused.place, rows.length - 1)].item)).li;
    (focused.act ? next.querySelector(`[data-act=${focused.act}]`) : next.querySelector("h3 a"))?.focus({
      preventScroll: true,
    });
  }

  /** Which items are liked, and what can be done with each. */
  function mark(ids, kinds) {
    liked = new Set(ids.map(String));
    can = new Set(kinds);
    kept.forEach(press);
  }

  /** Something was done with an item, and the list that comes of it is on its way. */
  const soon = (id) => kept.get(String(id))?.li.classList.add("soon");

  return { node, show, inform, mark, soon, size: () => kept.size };
}

/** Where a score lies between the list's least and greatest. */
function scaled(rows) {
  const scores = rows.map((row) => row.score).filter(Number.isFinite);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  return (score) => (high > low ? LEAST + (1 - LEAST) * ((score - low) / (high - low)) : 1);
}

/** Cards that hold the place of a list that is on its way. */
export function placeholders(n) {
  const one = () =>
    h(
      "li",
      { class: "card ghost" },
      h("span", { class: "card-cover" }, h("span", { class: "cover" })),
      h(
        "div",
        { class: "card-body" },
        h("span", { class: "line" }),
        h("span", { class: "line wide" }),
        h("span", { class: "line" }),
      ),
    );
  return h("ol", { class: "cards", "aria-hidden": "true" }, Array.from({ length: n }, one));
}

/** A small picture with a title, for rows of neighbours and histories. */
export function tile(item, { note = null, address = (id) => link("item", {}, id), action = null } = {}) {
  const title = titleOf(item);
  return h(
    "li",
    { class: "tile" },
    h(
      "a",
      { href: address(item.item) },
      cover(item.item, item.columns),
      h("span", { class: "tile-title" }, short(title, 70)),
    ),
    note && h("span", { class: "soft small" }, note),
    action,
  );
}
