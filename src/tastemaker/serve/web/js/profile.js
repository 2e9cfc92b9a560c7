// What a conversation knows of its person: to be read, corrected and erased.

import { ask, dropped, part, query } from "./api.js";
import { button, confirmed, field, fill, h, notice, say, toast, trouble } from "./dom.js";
import { worded } from "./format.js";
import { sheet } from "./sheet.js";

const LONGEST = 300; // letters of a line
const MOST = 200; // lines of a list

/**
 * Open it at the side.
 *
 * @param changed called with what the server answers to a correction or an erasure
 */
export async function profileSheet({ session, user, changed }) {
  const { body, close, signal } = sheet("What it knows of you");
  if (session === null) {
    fill(body, notice("Nothing yet", "Once you have talked, what is known of you can be read and corrected here."));
    return;
  }
  const where = `/sessions/${part(session)}/profile`;
  const whose = user === undefined ? "" : query({ user });
  let turn = null;
  let lists = {}; // name -> lines, as they stand here
  let saved = "";

  async function load() {
    fill(body, h("p", { class: "soft" }, "Looking …"));
    try {
      take(await ask(where + whose, { signal }));
    } catch (problem) {
      if (!dropped(problem)) fill(body, trouble(problem, problem.absent ? null : load), wipe());
    }
  }

  function take(found) {
    turn = found.turn;
    lists = structuredClone(found.profile);
    saved = JSON.stringify(lists);
    draw();
  }

  const save = button("Save", store, { kind: "main" });
  const state = h("p", { class: "small soft", role: "status" });

  function draw(focus = null) {
    const names = Object.keys(lists);
    fill(
      body,
      h(
        "p",
        { class: "soft small" },
        "It is part of this conversation, and goes with it. What you change here counts from your next message on.",
      ),
      names.length ? names.map(list) : notice("Nothing", "It keeps no lists of you."),
      state,
      h("div", { class: "row profile-acts" }, names.length ? save : null, wipe()),
    );
    mark();
    if (focus) body.querySelector(focus)?.focus();
  }

  function mark() {
    save.disabled = JSON.stringify(lists) === saved;
    state.textContent = save.disabled ? "" : "Changed, and not saved yet.";
  }

  function list(name, at) {
    const input = h("input", { type: "text", maxlength: LONGEST, placeholder: "Another line" });
    const add = (event) => {
      event.preventDefault();
      const line = input.value.trim();
      if (!line || lists[name].includes(line) || lists[name].length >= MOST) return;
      lists[name] = [...lists[name], line];
      draw(`[data-list="${at}"] input`);
      say(`Added ${line}.`);
    };
    const chip = (line) =>
      h(
        "li",
        {},
        h("span", {}, line),
        button(
          `Take ${line} out of ${worded(name)}`,
          () => {
            lists[name] = lists[name].filter((one) => one !== line);
            draw(`[data-list="${at}"] input`);
            say(`Took out ${line}.`);
          },
          { kind: "chip-act", drawing: "close", alone: true },
        ),
      );
    return h(
      "section",
      { class: "known", "data-list": at },
      h("h3", {}, worded(name)),
      lists[name].length
        ? h("ul", { class: "picked" }, lists[name].map(chip))
        : h("p", { class: "soft small" }, "Nothing."),
      h(
        "form",
        { class: "adder", on: { submit: add } },
        field(`Add to ${worded(name).toLowerCase()}`, input, null, { hidden: true }),
        h("button", { type: "submit", class: "button soft-button" }, "Add"),
      ),
    );
  }

  async function store() {
    save.disabled = true;
    try {
      const found = await ask(where, {
        method: "PUT",
        body: { profile: lists, turn, ...(user === undefined ? {} : { user }) },
        signal,
      });
      take(found);
      changed(found);
      state.textContent = "Saved.";
    } catch (problem) {
      if (dropped(problem)) return;
      mark();
      state.textContent = `Not saved: ${problem.message}`;
    }
  }

  function wipe() {
    return button(
      "Erase all of it",
      async () => {
        if (!(await confirmed("Erase what it knows of you?", "The lists are emptied. This cannot be undone.", "Erase")))
          return;
        try {
          const found = await ask(where + whose, { method: "DELETE", signal });
          changed(found);
          toast("What was known of you is erased.");
          if (found.ended) close();
          else take(found);
        } catch (problem) {
          if (!dropped(problem)) state.textContent = `Not erased: ${problem.message}`;
        }
      },
      { kind: "danger", drawing: "remove" },
    );
  }

  await load();
}
