// The list: like, hide, more like this, undo, and what comes of it, at once.

import { ask, dropped } from "./api.js";
import { cards, placeholders } from "./cards.js";
import { button, fill, h, notice, say, toast, trouble } from "./dom.js";
import { condition, filtersOf, setIn } from "./filters.js";
import { listed } from "./format.js";
import { panel } from "./panel.js";
import { go, link } from "./router.js";
import { moreLike } from "./sheet.js";
import { asker, itemsOf, listing, personOf, personParams, setPerson, tell, titleOf, visit } from "./store.js";
import { nameOf } from "./who.js";

const PAGE = 12;
const MOST = 500;
const DID = { like: "Liked", hide: "Hid", undo: "Took back" };
const done = new Map(); // user -> what was done in this visit, the latest first: {kind, did, item, title}

export const title = (route) => {
  const person = personOf(route.params);
  return person?.user === undefined ? "Your list" : `List for ${person.user}`;
};

export async function open(root, route, signal) {
  if (personOf(route.params) === null) {
    go(link("pick", { system: route.params.get("system") }), { replace: true });
    return {};
  }
  const { systems: all, default: first } = await listing();
  let now = null; // {route, params, system, person}
  let rows = []; // the list, and the cursor of what follows
  let next = null;
  let pending = null; // what somebody new did, until the address that it leads to is shown
  let waiting = new AbortController();
  signal.addEventListener("abort", () => waiting.abort());

  const itemAddress = (id) => link("item", { system: now.system.name, ...personParams(now.person) }, id);
  const board = cards({ act, address: itemAddress });
  const head = h("h1", { tabindex: "-1" }, "…");
  const under = h("p", { class: "soft under" });
  const place = h("div", { class: "list" });
  const numbers = button("Scores", () => showNumbers(!root.classList.contains("numbers")), { kind: "toggle" });
  const side = panel({
    all,
    undo: (one) => act("undo", one),
    signal,
    change: (params, how) => go(address(params), how),
    become: (person) => go(addressOf(person)),
    address: addressOf,
  });
  fill(
    root,
    h(
      "div",
      { class: "split" },
      h("div", { class: "answer-head headrow close" }, h("div", {}, head, under), numbers),
      side.node,
      h(
        "section",
        { class: "answer", "aria-labelledby": "answer" },
        h("h2", { class: "sr", id: "answer" }, "Recommendations"),
        place,
      ),
    ),
  );
  showNumbers(localStorage.getItem("tastemaker-scores") === "yes");

  function showNumbers(yes) {
    root.classList.toggle("numbers", yes);
    numbers.setAttribute("aria-pressed", String(yes));
    localStorage.setItem("tastemaker-scores", yes ? "yes" : "no");
  }

  // -- addresses

  /** The address of this question with some parameters changed. */
  function address(changes) {
    return link("try", { ...Object.fromEntries(now.params), ...changes });
  }

  /** The address of this question asked for another person. */
  function addressOf(person) {
    if (person.user === undefined && !person.liked.length) return link("pick", { system: now.params.get("system") });
    return address({ user: null, with: null, without: null, ...personParams(person) });
  }

  // -- the list

  async function show(next) {
    const person = personOf(next.params);
    const system = all.find((one) => one.name === (next.params.get("system") ?? first));
    if (person === null || !system) {
      if (person === null) go(link("pick"), { replace: true });
      else
        fill(
          place,
          notice(
            "No such system",
            `Nothing is served as “${next.params.get("system")}”.`,
            h("a", { href: link("try", personParams(person)) }, "Ask the default system"),
          ),
        );
      return;
    }
    now = { route: next, params: next.params, system, person };
    setPerson(person);
    refresh();
    nameOf(person, system, signal).then(
      (name) => {
        head.textContent = `For ${name}`;
      },
      () => {},
    );
    const told = pending;
    pending = null;
    await load({ k: told ? rows.length : PAGE, told });
  }

  function refresh() {
    const did = done.get(now.person.user) ?? [];
    const liked = now.person.liked ?? did.filter((one) => one.kind === "like").map((one) => one.item);
    board.mark(liked, ["like", "hide", ...(now.system.capabilities.includes("similar") ? ["similar"] : [])]);
    side.update({ ...now, done: did });
  }

  function question() {
    const { params, person, system } = now;
    const body = { ...asker(person), system: system.name, session: visit };
    const where = condition(params, system.columns);
    if (person.hidden?.length) body.exclude = person.hidden;
    if (where) body.where = where;
    if (params.get("seen")) body.seen = true;
    if (params.get("q")) body.query = params.get("q");
    if (system.capabilities.includes("explain")) body.explain = true;
    return body;
  }

  /**
   * Ask for the list, or for what follows it.
   *
   * @param told {did, row} what was done, so that it can be said what came of it
   */
  async function load({ k = PAGE, told = null, further = false } = {}) {
    const mine = now;
    const { system, params } = mine;
    waiting.abort();
    waiting = new AbortController();
    const { signal: within } = waiting;
    under.textContent = system.title;
    if (system.needs.includes("text") && !params.get("q")) {
      board.show([]);
      fill(
        place,
        notice("What are you looking for?", `${system.name} answers words: type some into the field “Looking for”.`),
      );
      return;
    }
    const before = board.size();
    if (!before) fill(place, placeholders(PAGE));
    place.setAttribute("aria-busy", "true");
    try {
      const size = further ? PAGE : Math.min(MOST, Math.max(PAGE, k));
      const answer = await ask("/recommend", {
        body: { ...question(), k: size, ...(further ? { cursor: next } : {}) },
        signal: within,
      });
      if (mine !== now) return;
      const page = answer.items.map((row) => ({ ...row, slate: answer.slate }));
      rows = further ? [...rows, ...page] : page;
      next = answer.next;
      if (!further || !before) draw(answer);
      else drawEnd(answer);
      const tally = board.show(rows, { changed: before > 0 && !further });
      if (further) {
        say(`${page.length} more`);
        board.node.children[rows.length - page.length]?.querySelector("h3 a")?.focus();
      } else if (told) {
        report(told, tally);
      } else {
        say(
          before
            ? `${rows.length} items from ${system.name}: ${tally.fresh} new, ${tally.moved} moved.`
            : `${rows.length} items from ${system.name}.`,
        );
      }
      itemsOf(
        rows.map((row) => row.item),
        system.name,
        within,
      ).then(board.inform, () => {});
    } catch (problem) {
      if (dropped(problem) || mine !== now) return;
      if (further && problem.status === 422) {
        await load();
        return;
      } // the system was renewed: begin again
      board.show([]);
      fill(
        place,
        trouble(problem, () => load({ k })),
      );
    } finally {
      if (mine === now && !within.aborted) place.removeAttribute("aria-busy");
    }
  }

  function draw(answer) {
    if (!rows.length) {
      const filtered = setIn(now.params) > 0;
      const cleared = address(Object.fromEntries(Object.keys(filtersOf(now.params)).map((name) => [name, null])));
      fill(
        place,
        notice(
          filtered ? "Nothing fits all of this" : "The list is empty",
          filtered
            ? "No item passes the filters and is new to this person."
            : `${now.system.name} has nothing to recommend here.`,
          filtered && button("Clear the filters", () => go(cleared)),
        ),
      );
      return;
    }
    if (board.node.parentNode !== place) fill(place, board.node);
    drawEnd(answer);
  }

  function drawEnd(answer) {
    while (board.node.nextSibling) board.node.nextSibling.remove();
    const trial = answer.experiment ? `, in the experiment ${answer.experiment} (${answer.arm})` : "";
    place.append(
      next
        ? button("Show more", () => load({ further: true }), { kind: "wide" })
        : h("p", { class: "soft center" }, "That is all there is."),
      h("p", { class: "soft small center" }, `Answered by ${answer.system}, fit ${answer.snapshot}${trial}.`),
    );
  }

  function report({ kind, row }, tally) {
    const parts = [tally.fresh && `${tally.fresh} new in the list`, tally.moved && `${tally.moved} moved`].filter(
      Boolean,
    );
    const text = `${DID[kind]} ${titleOf(row)}: ${parts.length ? listed(parts) : "the list stays as it is"}.`;
    toast(text, kind === "undo" ? null : () => act("undo", row));
  }

  // -- what can be done with an item

  async function act(kind, row) {
    if (kind === "similar") {
      moreLike(row, now.system, { act, where: condition(now.params, now.system.columns), address: itemAddress });
      return;
    }
    const { person } = now;
    const item = String(row.item);
    if (kind !== "undo") board.soon(item);
    const told = tell(kind, item, row.slate ? { slate: row.slate, position: row.rank } : {});
    if (person.user === undefined) {
      told.catch(() => {}); // the list rests on the address: what the server notes of a visit is for its own use
      const without = (ids) => ids.filter((one) => one !== item);
      const liked = [...without(person.liked), ...(kind === "like" ? [item] : [])];
      const hidden = [...without(person.hidden), ...(kind === "hide" ? [item] : [])];
      pending = { kind, row };
      go(addressOf({ liked, hidden }));
      return;
    }
    const others = (done.get(person.user) ?? []).filter((one) => String(one.item) !== item);
    const entry = { kind, did: DID[kind], item: row.item, title: titleOf(row) };
    done.set(person.user, kind === "undo" ? others : [entry, ...others]);
    refresh(); // the answer of the server is not waited for: it nearly always says yes
    try {
      await told;
    } catch (problem) {
      done.set(person.user, others);
      refresh();
      board.show(rows);
      toast(`That was not stored: ${problem.message}`);
      return;
    }
    if (now.person.user === person.user) await load({ k: rows.length, told: { kind, row } });
  }

  await show(route);
  return { update: show };
}
