// The question for a key. It is kept for this tab alone, by `api`.

import { button, field, h, unique } from "./dom.js";

/** Resolves to a key, or to null if there is none to be had. */
export function askForKey(refused = null) {
  return new Promise((resolve) => {
    const head = unique("key");
    const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true });
    const close = (given) => {
      dialog.close();
      dialog.remove();
      resolve(given);
    };
    const dialog = h(
      "dialog",
      {
        class: "dialog",
        "aria-labelledby": head,
        on: {
          cancel: (event) => {
            event.preventDefault();
            close(null);
          },
        },
      },
      h(
        "form",
        {
          on: {
            submit: (event) => {
              event.preventDefault();
              close(input.value.trim());
            },
          },
        },
        h("h2", { id: head }, "This server asks for a key"),
        refused && h("p", { class: "bad", role: "alert" }, `The key was refused: ${refused}.`),
        field("Key", input, "It stays in this tab, and is gone when the tab is closed."),
        h(
          "div",
          { class: "row end" },
          button("Cancel", () => close(null)),
          h("button", { type: "submit", class: "button main" }, "Go on"),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}
