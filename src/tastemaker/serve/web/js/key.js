// The question for a key. It is kept for this tab alone, by `api`.

import { button, dialog, field, h } from "./dom.js";

/** A promise of a key, or of null if there is none to be had. */
export function askForKey(refused = null) {
  const input = h("input", {
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    autofocus: true,
  });
  return dialog("This server asks for a key", (done) => {
    const submit = (event) => {
      event.preventDefault();
      done(input.value.trim());
    };
    return h(
      "form",
      { on: { submit } },
      refused && h("p", { class: "bad", role: "alert" }, `The key was refused: ${refused}.`),
      field("Key", input, "It stays in this tab, and is gone when the tab is closed."),
      h(
        "div",
        { class: "row end" },
        button("Cancel", () => done(null)),
        h("button", { type: "submit", class: "button main" }, "Go on"),
      ),
    );
  });
}
