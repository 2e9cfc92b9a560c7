// A sheet at the side, or at the foot of a small screen, over the page; closes by Escape, by its button, by a click beside it.

import { button, fill, h, trouble, unique } from "./dom.js";
import { ask, dropped } from "./api.js";
import { tile } from "./cards.js";
import { itemsOf, titleOf } from "./store.js";

/** Open a sheet; returns where its contents go, and what closes it. */
export function sheet(title, closed = () => {}) {
  const head = unique("sheet");
  const body = h("div", { class: "sheet-body" });
  const left = new AbortController();
  const close = () => dialog.close();
  const dialog = h(
    "dialog",
    {
      class: "sheet",
      "aria-labelledby": head,
      on: {
        click: (event) => {
          if (event.target === dialog) close();
        },
        close: () => {
          left.abort();
          dialog.remove();
          closed();
        },
      },
    },
    h(
      "div",
      { class: "sheet-head" },
      h("h2", { id: head, tabindex: "-1" }, title),
      button("Close", close, { kind: "quiet round", drawing: "close", alone: true }),
    ),
    body,
    h("p", { class: "sr said", role: "status" }),
  );
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("h2").focus();
  addEventListener("hashchange", close, { once: true, signal: left.signal });
  return { body, close, signal: left.signal };
}

/** Items near an item; `act(kind, row)` is told what is liked from here, and what is taken back. */
export async function moreLike(row, system, { act, where = null, address }) {
  const { body, signal } = sheet(`More like ${titleOf(row)}`);
  fill(body, h("p", { class: "soft" }, "Looking …"));
  const load = async () => {
    try {
      const found = await ask("/similar", {
        body: { item: row.item, k: 12, system: system.name, ...(where ? { where } : {}) },
        signal,
      });
      const all = await itemsOf(
        found.items.map((one) => one.item),
        system.name,
        signal,
      ).catch(() => new Map());
      const rows = found.items.map((one) => ({ ...one, columns: all.get(String(one.item))?.columns ?? {} }));
      fill(
        body,
        rows.length
          ? h(
              "ul",
              { class: "tiles" },
              rows.map((one) => tile(one, { address, action: liking(one) })),
            )
          : h("p", {}, "Nothing lies near it."),
      );
    } catch (problem) {
      if (!dropped(problem)) fill(body, trouble(problem, load));
    }
  };
  const liking = (one) => {
    const node = button(
      `Like ${titleOf(one)}`,
      () => {
        const on = node.getAttribute("aria-pressed") !== "true";
        node.setAttribute("aria-pressed", String(on));
        act(on ? "like" : "undo", one);
      },
      { kind: "round like", drawing: "heart", alone: true, "aria-pressed": "false" },
    );
    return node;
  };
  await load();
}
