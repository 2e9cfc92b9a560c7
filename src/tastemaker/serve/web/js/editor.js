// The editor of a pipeline: a form made from its schema, what the server thinks of it, its drawing, and a list it gives.

import { ask, dropped } from "./api.js";
import { button, confirmed, fill, h, linkButton, notice, settled, toast } from "./dom.js";
import { cover, dress } from "./cover.js";
import { form } from "./form.js";
import { count, short } from "./format.js";
import { stages } from "./pipelines.js";
import { go, link } from "./router.js";
import { fresh, resolved } from "./schema.js";
import { asker, columnsOf, itemsOf, person, personParams, systemOf, systems, titleOf } from "./store.js";
import { nameOf, someUser, userField } from "./who.js";

const DRAFT = "tastemaker-draft:";
const SHOWN = 8;

export async function edit(root, { name, known, found, signal }) {
  const { schema, shelf } = found;
  const kept = sessionStorage.getItem(DRAFT + name);
  let columns = [];
  const suggest = (field) =>
    /^(system|vectors)$/.test(field)
      ? shelf
      : /^columns?$/.test(field)
        ? columns
        : field === "name"
          ? [freeName(found)]
          : [];
  let spec = kept
    ? JSON.parse(kept)
    : known
      ? structuredClone(known.spec)
      : fresh(resolved(schema, schema), schema, suggest);
  let who = person();
  let checking = new AbortController();
  let sound = false; // whether the server agreed with what stands there now
  signal.addEventListener("abort", () => checking.abort());

  const state = h("p", { class: "state", role: "status" });
  const faults = h("div", {});
  const picture = h("div", { class: "diagram" });
  const forWhom = h("div", {});
  const preview = h("div", { class: "preview" });
  const area = h("textarea", { class: "json", rows: 26, spellcheck: "false", "aria-label": "The pipeline as JSON" });
  const fields = h("div", {});
  const save = button("Save and serve", store, { kind: "main" });
  const asJson = button("JSON", () => turn(area.hidden), { kind: "toggle", "aria-pressed": "false" });
  const revert = button("Discard changes", discard, { kind: "quiet" });
  const sides = h(
    "div",
    { class: "row sides", role: "group", "aria-label": "What to show" },
    button("Stages", () => face(false), { kind: "toggle" }),
    button("What it does", () => face(true), { kind: "toggle" }),
  );
  const panes = h(
    "div",
    { class: "editor" },
    h("section", { class: "stages-side", "aria-label": "Stages" }, fields, area),
    h(
      "aside",
      { class: "beside", "aria-label": "What it does" },
      picture,
      h("h2", {}, "A list it gives"),
      forWhom,
      preview,
    ),
  );
  let sheet = made();
  area.hidden = true;

  fill(
    root,
    h("p", { class: "small" }, h("a", { href: link("pipelines") }, "← Pipelines")),
    h(
      "div",
      { class: "headrow" },
      h("h1", { tabindex: "-1" }, known ? known.name : "New pipeline"),
      h(
        "div",
        { class: "row" },
        revert,
        asJson,
        known ? linkButton("Try it", link("try", { system: known.name })) : null,
        save,
      ),
    ),
    state,
    faults,
    sides,
    panes,
  );
  fill(fields, sheet.node);
  face(false);

  /** On a small screen: the stages, or what comes of them. */
  function face(result) {
    panes.classList.toggle("result", result);
    [...sides.children].forEach((node, at) => node.setAttribute("aria-pressed", String((at === 1) === result)));
  }

  function made() {
    return form({ schema, value: spec, suggest, changed });
  }

  function changed() {
    sessionStorage.setItem(DRAFT + name, JSON.stringify(spec));
    revert.hidden = false;
    later();
  }

  /** Show the JSON, or the form again. */
  function turn(json) {
    if (json) area.value = JSON.stringify(spec, null, 2);
    area.hidden = !json;
    fields.hidden = json;
    asJson.setAttribute("aria-pressed", String(json));
    if (json) area.focus();
    else anew();
  }

  function anew() {
    sheet = made();
    fill(fields, sheet.node);
    check();
  }

  area.addEventListener("input", () => {
    try {
      const read = JSON.parse(area.value);
      if (typeof read !== "object" || read === null || Array.isArray(read))
        throw new SyntaxError("a pipeline is an object: { ... }");
      spec = read;
      area.removeAttribute("aria-invalid");
      changed();
    } catch (error) {
      area.setAttribute("aria-invalid", "true");
      tell("bad", `This is no JSON yet: ${error.message}`);
      save.disabled = true;
    }
  });

  function discard() {
    sessionStorage.removeItem(DRAFT + name);
    spec = known ? structuredClone(known.spec) : fresh(resolved(schema, schema), schema, suggest);
    revert.hidden = true;
    turn(false);
    root.querySelector("h1").focus();
  }

  function tell(kind, text) {
    state.className = `state ${kind}`;
    if (state.textContent !== text) state.textContent = text;
  }

  // -- what the server says

  async function check() {
    checking.abort();
    checking = new AbortController();
    const within = checking.signal;
    sound = false;
    try {
      const answer = await ask("/pipelines/check", { body: { spec }, signal: within });
      sound = true;
      save.disabled = false;
      sheet.mark([]);
      fill(faults);
      tell("good", "It fits together.");
      draw(answer);
      await show(within);
    } catch (problem) {
      if (dropped(problem)) return;
      save.disabled = true;
      const all = problem.errors.length
        ? problem.errors.map((one) => ({ ...one, where: String(one.where ?? "").replace(/^body\.spec\.?/, "") }))
        : [{ where: "", what: problem.message, hint: problem.hint }];
      const rest = sheet.mark(all);
      tell(
        "bad",
        problem.errors.length
          ? `${count(all.length, "thing")} to put right${rest.length < all.length ? ", marked in the form" : ""}.`
          : problem.message,
      );
      fill(
        faults,
        (area.hidden ? rest : all).map((one) =>
          h("p", { class: "bad small" }, [one.where, one.what, one.hint].filter(Boolean).join(": ")),
        ),
      );
      preview.classList.add("stale");
      picture.classList.add("stale");
    }
  }
  const later = settled(check, 350);

  function draw(answer) {
    picture.classList.remove("stale");
    fill(
      picture,
      h("img", {
        src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(answer.svg)}`,
        alt: `Diagram: ${stages(spec)}`,
      }),
      h(
        "details",
        { class: "plain" },
        h("summary", {}, "As Mermaid text"),
        h("pre", { tabindex: "0" }, answer.mermaid),
      ),
    );
  }

  async function show(within) {
    if (who === null) {
      const user = await someUser(await systemOf(null)).catch(() => null);
      if (within.aborted) return;
      if (user !== null) who = { user: String(user) };
    }
    await named();
    try {
      const question = { ...(who ? asker(who) : {}), k: SHOWN, explain: Boolean(spec.explain) };
      const answer = await ask("/pipelines/preview", { body: { spec, question }, signal: within });
      const lead = answer.items.length ? (await systemOf(null))?.name : null;
      preview.classList.remove("stale");
      fill(
        preview,
        answer.items.length
          ? h("ol", {}, answer.items.map(row))
          : h("p", { class: "soft" }, "An empty list: nothing passes all of this."),
      );
      if (lead) {
        itemsOf(
          answer.items.map((one) => one.item),
          lead,
          within,
        ).then(
          (all) => {
            for (const li of preview.querySelectorAll("li[data-item]"))
              dress(li.querySelector(".cover"), all.get(li.dataset.item)?.columns ?? {});
          },
          () => {},
        );
      }
    } catch (problem) {
      if (!dropped(problem)) fill(preview, notice("No list", problem.message));
    }
  }

  const row = (one) =>
    h(
      "li",
      { "data-item": one.item },
      h("span", { class: "rank" }, one.rank),
      cover(String(one.item)),
      h(
        "span",
        { class: "what" },
        h("a", { href: link("item", personParams(who), one.item) }, titleOf(one)),
        one.reason ? h("span", { class: "soft" }, short(one.reason.text, 90)) : null,
      ),
    );

  let field = null;
  async function named() {
    const system = await systemOf(null);
    if (system === null || who === null) return;
    if (field === null) {
      field = userField(
        () => system,
        (user) => {
          who = { user };
          check();
        },
        who.user ?? "",
      );
      const label = h("p", { class: "soft small" });
      fill(forWhom, field.node, label);
      if (who.user === undefined)
        nameOf(who, system, signal).then(
          (text) => {
            label.textContent = `For ${text}.`;
          },
          () => {},
        );
    } else if (who.user !== undefined) {
      field.input.value = who.user;
      forWhom.lastChild.textContent = "";
    }
  }

  async function store() {
    save.disabled = true;
    try {
      if (!sound) {
        await check();
        if (!sound) {
          toast("It does not fit together yet.");
          return;
        }
      }
      const taken = spec.name !== known?.name && (await systems()).systems.some((one) => one.name === spec.name);
      if (
        taken &&
        !(await confirmed(
          `Replace ${spec.name}?`,
          "Something is served under this name. It can be had back by a rollback.",
          "Replace it",
        ))
      )
        return;
      const answer = await ask("/admin/pipelines", { body: { spec }, signal, admin: true });
      sessionStorage.removeItem(DRAFT + name);
      await systems({ anew: true });
      toast(`${answer.name ?? spec.name} is served.`);
      go(link("try", { system: answer.name ?? spec.name, ...personParams(who) }));
    } catch (problem) {
      if (!dropped(problem)) toast(`That did not work: ${problem.message}`);
    } finally {
      save.disabled = false;
    }
  }

  revert.hidden = kept === null;
  const lead = await systemOf(null).catch(() => null);
  if (lead)
    columns = await columnsOf(lead).then(
      (all) => all.map((one) => one.name),
      () => Object.keys(lead.columns).filter((one) => one !== "item"),
    );
  if (signal.aborted) return {};
  anew();
  return {};
}

function freeName({ pipelines, shelf }) {
  const taken = new Set([...pipelines.map((one) => one.name), ...shelf]);
  for (let n = 1; ; n += 1) if (!taken.has(`pipeline-${n}`)) return `pipeline-${n}`;
}
