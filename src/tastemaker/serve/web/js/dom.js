// Building the page. Whatever comes from outside becomes a text node or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: h("p", {class: "note", on: {click}}, "text", child, [more]). */
export function h(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** An SVG element. */
export function s(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name === "value" || name === "checked" || name === "selected" || name === "open") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...flat(children));
  return node;
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((one) => one !== null && one !== undefined && one !== false)
    .map((one) => (one instanceof Node ? one : document.createTextNode(String(one))));
}

/** Put these children in the place of all that a node holds. */
export function fill(node, ...children) {
  node.replaceChildren(...flat(children));
  return node;
}

let last = 0;
/** An id that no other element has. */
export const unique = (what) => `${what}-${++last}`;

const PATHS = {
  heart: "M12 20.5S3.5 15.3 3.5 9.2A4.7 4.7 0 0 1 12 6.4a4.7 4.7 0 0 1 8.5 2.8c0 6.1-8.5 11.3-8.5 11.3Z",
  hide: "M4 4l16 16M9.9 5.2A9.6 9.6 0 0 1 12 5c5 0 8.5 4 9.7 7a12 12 0 0 1-3 4.1M6.5 6.6A12.3 12.3 0 0 0 2.3 12c1.2 3 4.7 7 9.7 7a9.5 9.5 0 0 0 4.6-1.2M9.9 9.9a3 3 0 0 0 4.2 4.2",
  more: "M4 7h9M4 12h6M4 17h9M17 9v6M14 12h6",
  close: "M6 6l12 12M18 6L6 18",
  up: "M12 19V5M6 11l6-6 6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  add: "M12 5v14M5 12h14",
  remove: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  undo: "M8 5L4 9l4 4M4 9h10a6 6 0 0 1 0 12h-3",
  dice: "M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1ZM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  filter: "M4 6h16M7 12h10M10 18h4",
  check: "M5 12.5l4.5 4.5L19 7",
  send: "M4 12l16-8-5 16-4-6-7-2ZM11 14l9-10",
  stop: "M7 7h10v10H7z",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4.5 20a7.5 7.5 0 0 1 15 0",
  key: "M14 10a4 4 0 1 0-3.5 4L12 15.5h2V18h2v2h4v-3.5l-6.1-6.1",
};

/** A small drawing that says nothing by itself: what it stands in has the words. */
export function icon(name) {
  return s(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    s("path", { d: PATHS[name] }),
  );
}

/** A button; with an icon alone its label is read out and shown on hover. */
export function button(label, act, { kind = "", drawing = null, alone = false, ...props } = {}) {
  const named = alone ? { "aria-label": label, title: label } : {};
  const node = h("button", { type: "button", class: `button ${kind}`.trim(), ...named, ...props, on: { click: act } });
  node.append(...flat([drawing && icon(drawing), alone ? null : h("span", {}, label)]));
  return node;
}

/** A link that looks like a button. */
export function linkButton(label, href, { kind = "", drawing = null } = {}) {
  return h("a", { class: `button ${kind}`.trim(), href }, drawing && icon(drawing), h("span", {}, label));
}

/** A labelled control; help stands below it and is tied to it. */
export function field(label, control, help = null, { hidden = false } = {}) {
  control.id ||= unique("field");
  const note = help ? h("small", { class: "help", id: unique("help") }, help) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id, class: hidden ? "sr" : null }, label),
    control,
    note,
  );
}

/** A menu; options are [value, text] pairs. */
export function menu(options, chosen, act, props = {}) {
  const node = h(
    "select",
    { ...props, on: { change: () => act(node.value) } },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
  return node;
}

/** A tick box with its words. */
export function tick(label, checked, act, help = null) {
  const box = h("input", { type: "checkbox", checked, on: { change: () => act(box.checked) } });
  const note = help ? h("small", { class: "help", id: unique("help") }, help) : null;
  if (note) box.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field tick" }, h("label", {}, box, h("span", {}, label)), note);
}

const polite = () => document.querySelector("dialog[open] .said") ?? document.getElementById("said");
let clearing;
/** Tell those who listen what changed. */
export function say(text) {
  const node = polite();
  clearTimeout(clearing);
  node.textContent = "";
  requestAnimationFrame(() => {
    node.textContent = text;
  });
  clearing = setTimeout(() => {
    node.textContent = "";
  }, 8000);
}

let fading;
/** A note at the edge of the screen, read out too; `undo` adds a button for it. */
export function toast(text, undo = null) {
  const place = document.getElementById("toast");
  clearTimeout(fading);
  const close = () => place.replaceChildren();
  const card = h(
    "div",
    { class: "toast" },
    h("p", {}, text),
    undo &&
      button(
        "Undo",
        () => {
          close();
          undo();
        },
        { kind: "quiet", drawing: "undo" },
      ),
    button("Close this note", close, { kind: "quiet round", drawing: "close", alone: true }),
  );
  fill(place, card);
  const later = () => {
    fading = setTimeout(close, 9000);
  };
  card.addEventListener("focusin", () => clearTimeout(fading));
  card.addEventListener("focusout", later);
  card.addEventListener("pointerenter", () => clearTimeout(fading));
  card.addEventListener("pointerleave", later);
  later();
  say(text);
}

/** What is said where there is nothing to show, or something went wrong. */
export function notice(title, text, ...more) {
  return h("div", { class: "notice" }, h("h2", {}, title), text && h("p", {}, text), more);
}

const LONGEST_HINT = 160;

/** An error in words for people, with a way on. */
export function trouble(problem, again = null) {
  const sentence = problem.message.charAt(0).toUpperCase() + problem.message.slice(1);
  const hint =
    problem.hint && problem.hint.length > LONGEST_HINT ? `${problem.hint.slice(0, LONGEST_HINT)} …` : problem.hint;
  const node = notice(
    problem.title || "That did not work",
    sentence,
    hint && h("p", { class: "soft" }, hint),
    again && button("Try again", again),
    problem.request && h("p", { class: "soft small" }, "Request ", h("code", {}, problem.request)),
  );
  node.setAttribute("role", "alert");
  return node;
}

/**
 * A question over the page.
 *
 * @param contents (done) -> what stands in it; `done(value)` closes it
 * @returns a promise of that value, or of null if it was closed in another way
 */
export function dialog(title, contents) {
  return new Promise((resolve) => {
    let answer = null;
    const head = unique("dialog");
    const close = () => {
      node.remove();
      resolve(answer);
    };
    const done = (value) => {
      answer = value;
      node.close();
    };
    const node = h(
      "dialog",
      { class: "dialog", "aria-labelledby": head, on: { close } },
      h("h2", { id: head }, title),
      contents(done),
    );
    document.body.append(node);
    node.showModal();
  });
}

/** Ask before something that cannot be taken back; a promise of whether the answer was yes. */
export async function confirmed(title, text, yes, kind = "danger") {
  const answer = await dialog(title, (done) => [
    h("p", {}, text),
    h(
      "div",
      { class: "row end" },
      button("Cancel", () => done(null)),
      button(yes, () => done(true), { kind }),
    ),
  ]);
  return answer === true;
}

/** Whether things may move. */
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Call once things are quiet for so long. */
export function settled(act, wait = 200) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}
