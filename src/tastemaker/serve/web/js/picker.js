// A field that searches as one types: the ARIA combobox with a list, by keyboard or pointer.

import { dropped } from "./api.js";
import { cover } from "./cover.js";
import { h, say, settled, unique } from "./dom.js";
import { count } from "./format.js";

/**
 * A search field.
 *
 * @param label what it asks for
 * @param find (text, signal) -> {options: [{value, label, detail, item, columns}], total}
 * @param choose called with the option that is taken
 * @param keep whether the label of what is taken stays in the field
 */
export function picker({ label, find, choose, placeholder = "", value = "", keep = true, hidden = false }) {
  const ids = { input: unique("find"), list: unique("found") };
  const input = h("input", {
    id: ids.input,
    type: "text",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    placeholder,
    value,
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": ids.list,
  });
  const list = h("ul", { id: ids.list, role: "listbox", "aria-label": label, class: "found", hidden: true });
  const node = h(
    "div",
    { class: "field picker" },
    h("label", { for: ids.input, class: hidden ? "sr" : null }, label),
    h("div", { class: "over" }, input, list),
  );
  let options = [];
  let active = -1;
  let waiting = null;

  function show(open) {
    list.hidden = !open;
    input.setAttribute("aria-expanded", String(open));
    if (!open) mark(-1);
  }

  function mark(place) {
    active = place;
    [...list.children].forEach((one, at) => one.setAttribute?.("aria-selected", String(at === place)));
    const chosen = place >= 0 ? list.children[place] : null;
    if (chosen) {
      input.setAttribute("aria-activedescendant", chosen.id);
      chosen.scrollIntoView({ block: "nearest" });
    } else {
      input.removeAttribute("aria-activedescendant");
    }
  }

  function take(option) {
    waiting?.abort();
    input.value = keep ? option.label : "";
    show(false);
    choose(option);
  }

  async function look() {
    waiting?.abort();
    waiting = new AbortController();
    const { signal } = waiting;
    let found;
    try {
      found = await find(input.value.trim(), signal);
    } catch (error) {
      if (dropped(error)) return;
      found = { options: [], total: 0, fault: error.message };
    }
    if (signal.aborted || document.activeElement !== input) return;
    options = found.options;
    list.replaceChildren(...options.map((option, place) => row(option, place)));
    if (!options.length) {
      list.append(
        h("li", { class: "none", role: "option", "aria-disabled": "true" }, found.fault ?? "Nothing has these letters"),
      );
    } else if (found.total > options.length) {
      list.append(
        h(
          "li",
          { class: "none", role: "option", "aria-disabled": "true" },
          `${count(found.total - options.length, "more", "more")}: type on to narrow it down`,
        ),
      );
    }
    show(true);
    say(found.fault ?? count(found.total, "result"));
  }

  function row(option, place) {
    return h(
      "li",
      {
        id: `${ids.list}-${place}`,
        role: "option",
        "aria-selected": "false",
        on: {
          pointerdown: (event) => event.preventDefault(), // the field keeps the focus
          click: () => take(option),
        },
      },
      option.item === undefined ? null : cover(option.item, option.columns),
      h("span", {}, option.label, option.detail ? h("small", {}, option.detail) : null),
    );
  }

  const later = settled(look, 160);
  input.addEventListener("input", later);
  input.addEventListener("focus", () => {
    input.select();
    look();
  });
  input.addEventListener("blur", () => {
    waiting?.abort();
    show(false);
  });
  input.addEventListener("keydown", (event) => {
    const moves = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in moves) {
      event.preventDefault();
      if (list.hidden) {
        look();
        return;
      }
      if (options.length) mark((active + moves[event.key] + options.length) % options.length);
    } else if (event.key === "Enter" && !list.hidden && options.length) {
      event.preventDefault();
      take(options[Math.max(active, 0)]);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      show(false);
    }
  });
  return { node, input };
}
