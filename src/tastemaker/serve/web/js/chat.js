// A conversation beside the list it leads to: what is said, what is asked, what was done for it, and the items.

import { ask, dropped, part, told } from "./api.js";
import { cards } from "./cards.js";
import { asked, composer, transcript } from "./talk.js";
import { button, field, fill, h, menu, notice, say, toast } from "./dom.js";
import { count, listed } from "./format.js";
import { profileSheet } from "./profile.js";
import { go, link } from "./router.js";
import { moreLike } from "./sheet.js";
import {
  asker,
  columnsOf,
  conversing,
  eventOf,
  itemsOf,
  personOf,
  personParams,
  send,
  setPerson,
  systems,
  titleOf,
} from "./store.js";
import { userField } from "./who.js";

const KEPT = "tastemaker-talk";
const MOST_KEPT = 200; // lines of a conversation that outlive a reload
const STARTERS = 3;
const GONE = new Set([404, 409]); // the session is over, or no use to a renewed system

export const title = () => "Chat";

export async function open(root, route, signal) {
  const able = await conversing();
  if (!able.length) {
    fill(
      root,
      h("h1", { tabindex: "-1" }, "Chat"),
      notice(
        "Nobody here to talk to",
        "A conversation needs a system that holds sessions.",
        h("p", {}, h("a", { href: link("try") }, "To the lists")),
      ),
    );
    return {};
  }
  const { systems: all } = await systems();
  let now = null; // {route, params, system, person, key}
  let talk = null; // {session, turn, lines, rows, question, liked, events}: what is kept of the conversation
  let working = null; // stops the turn that is at work
  signal.addEventListener("abort", () => working?.abort());

  const itemAddress = (id) => link("item", { system: now.system.name, ...personParams(now.person) }, id);
  const board = cards({ act, address: itemAddress });
  const lines = transcript();
  const question = h("div", {});
  const place = h("div", { class: "list" });
  const under = h("p", { class: "soft under" });
  const entry = composer({ say: (text) => turn({ text }), stop: () => working?.abort() });
  const knows = button("Your profile", profile, { kind: "soft-button", drawing: "person" });
  const anew = button("Begin anew", () => begin(true), { kind: "soft-button", drawing: "undo" });
  const who = asking();
  fill(
    root,
    h(
      "div",
      { class: "talk-head headrow" },
      h("div", {}, h("h1", { tabindex: "-1" }, "Chat"), under),
      h("div", { class: "row" }, knows, anew),
    ),
    who.node,
    h(
      "div",
      { class: "talk-split" },
      h(
        "div",
        { class: "talk" },
        h("h2", { class: "sr" }, "Conversation"),
        lines.node,
        h("div", { class: "talk-foot" }, question, entry.node),
      ),
      h(
        "section",
        { class: "answer", "aria-labelledby": "found" },
        h("h2", { class: "sr", id: "found" }, "Items"),
        place,
      ),
    ),
  );

  // -- for whom, and with whom

  function asking() {
    const user = userField(
      () => now.system,
      (id) => go(link("chat", { ...Object.fromEntries(now.params), with: null, without: null, user: id })),
    );
    const from = menu(
      able.map((one) => [one.name, one.name]),
      null,
      (name) => go(link("chat", { ...Object.fromEntries(now.params), system: name === able[0].name ? null : name })),
    );
    const nobody = h("a", { class: "small" }, "Be somebody new");
    const opener = button(
      "",
      () => opener.setAttribute("aria-expanded", String(node.classList.toggle("shown"))),
      { kind: "opener", drawing: "filter", "aria-controls": "talk-ask", "aria-expanded": "false" },
    );
    const body = h("div", { class: "panel-body", id: "talk-ask" }, field("System", from), user.node, nobody);
    const node = h("aside", { class: "panel talk-ask", "aria-label": "Who talks with whom" }, opener, body);
    function update() {
      from.value = now.system.name;
      if (document.activeElement !== user.input || now.person?.user) user.input.value = now.person?.user ?? "";
      nobody.hidden = now.person === null;
      nobody.href = link("chat", { system: now.params.get("system") });
      opener.lastChild.textContent = `${now.person?.user ?? "somebody new"} · ${now.system.name}`;
    }
    return { node, update };
  }

  function show(next) {
    const wanted = next.params.get("system") ?? able[0].name;
    const system = able.find((one) => one.name === wanted);
    if (!system) {
      toast(`Nothing that converses is served as “${wanted}”.`);
      go(link("chat", { ...Object.fromEntries(next.params), system: null }), { replace: true });
      return;
    }
    const person = personOf(next.params);
    const key = `${KEPT} ${JSON.stringify([system.name, person])}`;
    if (now?.key === key) return;
    working?.abort();
    now = { route: next, params: next.params, system, person, key };
    setPerson(person);
    who.update();
    under.textContent = system.title;
    knows.hidden = !system.capabilities.includes("profile");
    talk = recalled(key) ?? empty();
    draw();
  }

  // -- what is kept of it, in this tab

  const empty = () => ({ session: null, turn: 0, lines: [], rows: [], question: null, liked: [], events: [] });

  function keep() {
    const kept = { ...talk, lines: talk.lines.slice(-MOST_KEPT) };
    try {
      sessionStorage.setItem(now.key, JSON.stringify(kept));
    } catch {
      sessionStorage.removeItem(now.key); // there is no room: the conversation goes on without it
    }
  }

  function recalled(key) {
    try {
      return JSON.parse(sessionStorage.getItem(key));
    } catch {
      return null;
    }
  }

  /** Begin anew; the server forgets the session too. */
  function begin(asked = false) {
    working?.abort();
    if (talk.session) {
      const user = now.person?.user === undefined ? "" : `?user=${part(now.person.user)}`;
      ask(`/sessions/${part(talk.session)}${user}`, { method: "DELETE" }).catch(() => {}); // or it expires
    }
    sessionStorage.removeItem(now.key);
    talk = empty();
    draw();
    if (asked) {
      say("A new conversation.");
      entry.focus();
    }
  }

  // -- drawing

  function draw() {
    lines.show(talk.lines);
    drawQuestion();
    drawList();
    drawPending();
    anew.disabled = !talk.lines.length;
    if (!talk.lines.length) starters();
  }

  function drawQuestion() {
    const node = talk.question === null ? null : asked(talk.question, answer);
    fill(question, node);
  }

  function drawList(changed = false) {
    board.mark(talk.liked, ["like", "hide", ...(kin() ? ["similar"] : [])]);
    if (!talk.rows.length) {
      board.show([]);
      fill(place, h("p", { class: "soft center list-hint" }, "What is found for you appears here."));
      return null;
    }
    if (board.node.parentNode !== place) fill(place, board.node);
    const tally = board.show(talk.rows, { changed });
    const { system } = now;
    itemsOf(
      talk.rows.map((row) => row.item),
      system.name,
      signal,
    ).then(board.inform, () => {});
    return tally;
  }

  function drawPending() {
    const liked = talk.events.filter((one) => one.kind === "like").length;
    const rest = talk.events.length - liked;
    const parts = [liked && count(liked, "like"), rest && `${rest} not wanted`].filter(Boolean);
    entry.pending(parts.length ? `${listed(parts)}: told with what you say next.` : "");
  }

  /** What one may say to begin with, made from what the catalogue holds. */
  async function starters() {
    const mine = now;
    const columns = await columnsOf(now.system).catch(() => []);
    if (mine !== now || talk.lines.length) return;
    const kinds = columns.find((one) => one.kind === "categories" && one.values?.length);
    const some = (kinds?.values ?? []).slice(0, STARTERS).map((one) => `Show me ${one.value}`);
    lines.greet("Say what you are looking for, in your own words.", some, (text) => turn({ text }));
  }

  // -- a turn

  /** Say something, or answer; `words` is what stands in the conversation for it. */
  async function turn({ text = null, answers = [], words = text }) {
    if (working !== null || (!text && !answers.length && !talk.events.length)) return;
    const mine = talk;
    const events = talk.events;
    const left = new AbortController();
    working = left;
    anew.disabled = false;
    entry.busy(true);
    const said = { who: "me", text: words || "(what you did with the items)" };
    const line = { who: "it", text: "", steps: [] };
    talk.lines.push(said);
    const mineNode = lines.add(said);
    const doing = lines.work(line);
    fill(question);
    say("Working on it");
    const body = talk.session
      ? { session: talk.session, ...(now.person?.user === undefined ? {} : { user: now.person.user }) }
      : { system: now.system.name, ...asker(now.person) };
    if (text) body.text = text;
    if (answers.length) body.answers = answers;
    if (events.length) body.events = events;
    const found = { question: null, rows: null };
    let over = false;
    try {
      for await (const { kind, what } of told("/chat", body, left.signal)) {
        if (talk !== mine) return;
        if (kind === "step") doing.step(what);
        else if (kind === "words") line.text = what.text;
        else if (kind === "ask") found.question = what;
        else if (kind === "items") found.rows = what.items.map((row) => ({ ...row, slate: what.slate }));
        else if (kind === "turn") {
          Object.assign(talk, { session: what.session, turn: what.turn, question: found.question, events: [] });
          over = true;
        }
      }
      if (!over) throw Object.assign(new Error("The answer broke off."), { status: 0 });
      talk.lines.push(line);
      doing.done();
      if (found.rows) talk.rows = found.rows;
      const tally = found.rows && drawList(true);
      if (tally) say(`${count(talk.rows.length, "item")} in the list, ${tally.fresh} of them new.`);
      keep();
    } catch (problem) {
      if (talk !== mine) return;
      talk.lines.pop();
      mineNode.remove();
      doing.failed(dropped(problem) ? null : problem, GONE.has(problem.status) ? () => begin(true) : null);
      if (text) entry.restore(text);
      if (dropped(problem)) say("Stopped. It is as if you had not said that.");
    } finally {
      if (working === left) {
        working = null;
        entry.busy(false);
      }
      if (talk === mine) {
        drawQuestion();
        drawPending();
      }
    }
  }

  function answer(answers, words) {
    lines.node.focus({ preventScroll: true }); // the buttons go, and the focus must not go with them
    turn({ answers, words });
  }

  // -- what can be done with an item

  /** Who says what lies near an item: the system itself, or one that knows the same catalogue. */
  function kin() {
    const can = (one) => one.capabilities.includes("similar");
    if (can(now.system)) return now.system;
    const kinds = (one) => `${one.items} ${Object.keys(one.columns)}`;
    const same = (one) => kinds(one) === kinds(now.system);
    return all.find((one) => can(one) && same(one)) ?? null;
  }

  async function act(kind, row) {
    if (kind === "similar") {
      moreLike(row, kin(), { act, address: itemAddress });
      return;
    }
    const item = String(row.item);
    const event = eventOf(kind, item, row.slate ? { slate: row.slate, position: row.rank } : {});
    const before = { liked: talk.liked, rows: talk.rows, events: talk.events };
    const mine = talk;
    talk.events = [...talk.events.filter((one) => one.item !== item), ...(kind === "undo" ? [] : [event])];
    talk.liked = [...talk.liked.filter((one) => one !== item), ...(kind === "like" ? [item] : [])];
    if (kind === "hide") talk.rows = talk.rows.filter((one) => String(one.item) !== item);
    drawList();
    drawPending();
    keep();
    const name = titleOf(row);
    try {
      await send(event);
    } catch (problem) {
      if (talk !== mine) return;
      Object.assign(talk, before);
      draw();
      toast(`That was not stored: ${problem.message}`);
      return;
    }
    if (kind === "hide") {
      toast(`Hid ${name}.`, () => {
        if (talk === mine) {
          talk.rows = before.rows;
          act("undo", row);
        }
      });
    } else {
      say(`${kind === "like" ? "Liked" : "Took back"} ${name}.`);
    }
  }

  // -- the profile

  function profile() {
    profileSheet({
      session: talk.session,
      user: now.person?.user,
      signal,
      changed: (found) => {
        if (found.ended) begin();
        else {
          talk.turn = found.turn;
          keep();
        }
      },
    });
  }

  show(route);
  return { update: show };
}
