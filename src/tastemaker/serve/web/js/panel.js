// What is asked: for whom, from which system, under which conditions. Made from what the systems say of themselves.

import { button, field, fill, h, menu, settled, tick } from "./dom.js";
import { clearing, controls, filtersOf, setIn } from "./filters.js";
import { count, listed } from "./format.js";
import { link } from "./router.js";
import { columnsOf } from "./store.js";
import { made, userField } from "./who.js";

const GIVEN = new Set(["users", "history", "text"]); // what this page can give a system that needs it

/**
 * The panel beside a list.
 *
 * @param all the systems that are served
 * @param change called with parameters of the address that change, by name
 * @param become called with the person the list is for from now on
 * @param undo called with something that was done
 */
export function panel({ all, change, become, address, undo, signal }) {
  let now = null; // {params, system, person, done}
  const about = { filters: null, columns: null, person: null };

  const user = userField(
    () => now.system,
    (id) => become({ user: id }),
  );
  const underUser = h("div", {});
  const from = menu(
    all.map((one) => [one.name, one.kind === "pipeline" ? `${one.name} (pipeline)` : one.name]),
    null,
    (name) => change({ system: name === all[0].name ? null : name }),
  );
  const fromField = field("System", from, " ");
  const lacking = h("p", { class: "small warn", hidden: true });
  const words = h("input", { type: "search" });
  words.addEventListener(
    "input",
    settled(() => change({ q: words.value.trim() || null }, { replace: true }), 400),
  );
  const wordsField = field("Looking for", words, "In your own words.");
  const seen = tick("Known items may come again", false, (yes) => change({ seen: yes || null }));
  const onlyHead = h("h2", { tabindex: "-1" }, "Only");
  const clearPlace = h("div", {});
  const filters = h("div", { class: "filters" });
  const visit = h("section", { class: "visit-part" });

  const body = h(
    "div",
    { class: "panel-body", id: "panel" },
    h("section", {}, h("h2", {}, "For"), user.node, underUser),
    h("section", {}, h("h2", {}, "From"), fromField, lacking, wordsField, seen),
    h("section", {}, h("div", { class: "headrow" }, onlyHead, clearPlace), filters),
    visit,
  );
  const opener = button(
    "",
    () => {
      const shown = node.classList.toggle("shown");
      opener.setAttribute("aria-expanded", String(shown));
    },
    { kind: "opener", drawing: "filter", "aria-controls": "panel", "aria-expanded": "false" },
  );
  const node = h("aside", { class: "panel", "aria-label": "What is asked" }, opener, body);

  /** Show another question; a control that is being used keeps its focus. */
  function update(next) {
    now = next;
    const { params, system, person } = now;
    const who = person.user ?? "somebody new";
    opener.lastChild.textContent = [who, system.name, setIn(params) ? count(setIn(params), "filter") : null]
      .filter(Boolean)
      .join(" · ");
    from.value = system.name;
    fromField.querySelector(".help").textContent = system.title;
    const missing = system.needs.filter((one) => !GIVEN.has(one));
    lacking.hidden = !missing.length;
    lacking.textContent = `It also needs ${listed(missing)}, which this page cannot give.`;
    wordsField.hidden = !system.needs.includes("text");
    if (document.activeElement !== words) words.value = params.get("q") ?? "";
    seen.querySelector("input").checked = Boolean(params.get("seen"));
    drawPerson();
    drawFilters();
    drawVisit();
  }

  function drawPerson() {
    const { person, system, params } = now;
    const key = JSON.stringify([person, system.name]);
    if (about.person === key) return;
    about.person = key;
    if (document.activeElement !== user.input || person.user) user.input.value = person.user ?? "";
    const within = underUser.contains(document.activeElement);
    const put = (...content) => {
      fill(underUser, ...content);
      if (within) underUser.querySelector("a, button")?.focus();
    };
    if (person.user !== undefined) {
      put(
        h(
          "p",
          { class: "small links" },
          h("a", { href: link("user", { system: system.name }, person.user) }, "What this user chose"),
          h("a", { href: link("pick", { system: params.get("system") }) }, "Be somebody new"),
        ),
      );
    } else {
      made(person, system, address, signal).then(
        (one) => {
          if (about.person === key) put(one);
        },
        () => {},
      );
    }
  }

  function drawFilters() {
    const { params, system } = now;
    fill(
      clearPlace,
      clearing(params, () => {
        about.filters = null;
        change(Object.fromEntries(Object.keys(filtersOf(params)).map((name) => [name, null])));
        onlyHead.focus();
      }),
    );
    const shown = JSON.stringify(filtersOf(params));
    const key = `${system.name} ${system.snapshot}`;
    if (about.filters === shown && about.columns === key) return;
    Object.assign(about, { filters: shown, columns: key });
    const set = (name, value) => {
      const after = new URLSearchParams(now.params);
      if (value === null) after.delete(name);
      else after.set(name, value);
      about.filters = JSON.stringify(filtersOf(after)); // the control shows it already
      change({ [name]: value });
    };
    const put = (columns) => {
      if (about.columns === key) fill(filters, controls(columns, now.params, set));
    };
    columnsOf(system).then(put, () => put([]));
  }

  function drawVisit() {
    const { done } = now;
    visit.hidden = !done.length;
    fill(
      visit,
      h("h2", {}, "Done in this visit"),
      h(
        "ul",
        { class: "visit" },
        done.slice(0, 6).map((one) =>
          h(
            "li",
            {},
            h("span", {}, `${one.did} ${one.title}`),
            button(`Undo: ${one.did} ${one.title}`, () => undo(one), {
              kind: "round quiet",
              drawing: "undo",
              alone: true,
            }),
          ),
        ),
      ),
    );
  }

  return { node, update };
}
