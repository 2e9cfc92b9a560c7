// Pieces of a conversation: its lines with what was done for each, the question, the place to write.

import { button, fill, h, icon, trouble } from "./dom.js";
import { count, short, worded } from "./format.js";

const LONGEST = 4000; // letters of a message, as the server takes them
const SHOWN = 400; // letters of a step

/** The lines, the newest last; whoever listens hears each when it is whole. */
export function transcript() {
  const list = h("ol", { class: "lines", role: "list" });
  const node = h(
    "div",
    { class: "talk-log", role: "log", "aria-label": "Conversation", "aria-live": "polite", tabindex: "0" },
    list,
  );
  const down = (li) => {
    node.scrollTop = node.scrollHeight;
    li.scrollIntoView({ block: "nearest" });
  };

  function made(line) {
    const mine = line.who === "me";
    return h(
      "li",
      { class: `line-of ${mine ? "me" : "it"}` },
      h("span", { class: "sr" }, mine ? "You: " : "Answer: "),
      line.text && h("p", {}, line.text),
      line.steps?.length ? steps(line.steps) : null,
    );
  }

  return {
    node,
    show(lines) {
      fill(list, lines.map(made));
      node.scrollTop = node.scrollHeight;
    },
    add(line) {
      list.querySelectorAll(".greeting, [data-failed]").forEach((one) => one.remove());
      const li = made(line);
      list.append(li);
      down(li);
      return li;
    },
    /** What is said before anybody has spoken, and ways to begin. */
    greet(text, some, say) {
      const offer = (one) => h("button", { type: "button", class: "chip", on: { click: () => say(one) } }, one);
      const offers = h("div", { class: "chips" }, some.map(offer));
      fill(list, h("li", { class: "greeting" }, h("p", { class: "soft" }, text), offers));
    },
    /** A line that is being worked at. */
    work(line) {
      const state = h("p", { class: "soft working", "aria-hidden": "true" }, "…");
      const li = h("li", { class: "line-of it" }, state);
      list.append(li);
      down(li);
      return {
        step(one) {
          line.steps.push(one);
          state.textContent = `${worded(one.tool)} …`;
        },
        done() {
          const whole = made(line);
          li.replaceWith(whole);
          down(whole);
        },
        /** It failed, or was stopped (no problem). */
        failed(problem, anew) {
          li.dataset.failed = "yes";
          const stopped = "Stopped. It is as if you had not said that.";
          fill(
            li,
            problem === null ? h("p", { class: "soft" }, stopped) : trouble(problem),
            problem !== null && anew ? button("Begin anew", anew, { kind: "main" }) : null,
          );
          down(li);
        },
      };
    },
  };
}

/** What was done for an answer, to be opened by whoever wants to know. */
function steps(all) {
  const failed = all.filter((one) => one.failed).length;
  return h(
    "details",
    { class: "plain steps", on: { toggle: (event) => event.target.scrollIntoView({ block: "nearest" }) } },
    h("summary", {}, count(all.length, "step"), failed ? `, ${failed} failed` : null),
    h(
      "ol",
      {},
      all.map((one) =>
        h(
          "li",
          {},
          h("b", {}, worded(one.tool)),
          one.failed ? h("span", { class: "tag alarm" }, "failed") : null,
          one.input ? h("code", {}, short(one.input, SHOWN)) : null,
          one.output ? h("span", { class: "soft" }, short(one.output, SHOWN)) : null,
        ),
      ),
    ),
  );
}

/**
 * A question and its answers, as buttons.
 *
 * @param answer called with (answers, words): what goes to the server, and what stands in the conversation
 */
export function asked({ attribute, values }, answer) {
  const name = worded(attribute);
  const one = values.length === 1 ? values[0] : null;
  const reply = (value, said) => ({ attribute, ...(value === null ? {} : { value }), reply: said });
  const chip = (text, answers) =>
    h("button", { type: "button", class: "chip", on: { click: () => answer(answers, `${name}: ${text}`) } }, text);
  const yes = values.length > 1 ? [] : [chip("Yes", [reply(one, "yes")])];
  const no =
    values.length > 1
      ? chip(
          "None of these",
          values.map((value) => reply(value, "no")),
        )
      : chip("No", [reply(one, "no")]);
  return h(
    "div",
    { class: "question", role: "group", "aria-label": `${name}${one === null ? "" : `: ${one}`}` },
    h("p", { class: "label", "aria-hidden": "true" }, `${name}${one === null ? "" : `: ${one}`}?`),
    h(
      "div",
      { class: "chips" },
      values.length > 1 ? values.map((value) => chip(value, [reply(value, "yes")])) : yes,
      no,
      chip("Don’t know", [reply(one, "unknown")]),
    ),
  );
}

/** The place to write: Enter sends, Shift and Enter begins a line. */
export function composer({ say, stop }) {
  const area = h("textarea", {
    rows: 1,
    maxlength: LONGEST,
    "aria-label": "Message",
    placeholder: "Say what you are looking for",
    enterkeyhint: "send",
  });
  const note = h("p", { class: "small soft pending", role: "status" });
  const go = h("button", { type: "submit", class: "button main", "aria-label": "Send", title: "Send" }, icon("send"));
  const end = button("Stop", stop, { kind: "soft-button", drawing: "stop", alone: true });
  end.hidden = true;
  const form = h(
    "form",
    {
      class: "composer",
      on: {
        submit: (event) => {
          event.preventDefault();
          if (!end.hidden) return;
          const text = area.value.trim();
          if (!text && !note.textContent) return;
          area.value = "";
          fit();
          say(text || null);
        },
      },
    },
    area,
    go,
    end,
  );
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 160)}px`;
  };
  area.addEventListener("input", fit);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  return {
    node: h("div", {}, note, form),
    focus: () => area.focus(),
    busy(yes) {
      const held = document.activeElement === (yes ? go : end);
      go.hidden = yes;
      end.hidden = !yes;
      if (held) (yes ? end : area).focus();
    },
    /** What was not taken is there to be sent again, unless something else is written by now. */
    restore(text) {
      if (!area.value) area.value = text;
      fit();
    },
    pending(text) {
      if (note.textContent !== text) note.textContent = text;
    },
  };
}
