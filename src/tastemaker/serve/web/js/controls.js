// Plain controls of a form from a JSON schema: texts, numbers, choices, flags, each with its help and a place for a fault.

import { field, h, menu, tick, unique } from "./dom.js";
import { number, short, worded } from "./format.js";
import { resolved } from "./schema.js";

const LONG = 300; // letters that a text may have, from which its field is a wide one
const SLIDER = 1; // ranges up to this wide are drawn as sliders

/** Give a field its value; one that is as it would be anyway is left out. */
function assign(ctx, owner, key, value, schema, required = false) {
  const plain = "default" in schema && JSON.stringify(value) === JSON.stringify(schema.default);
  const empty = value === null || value === "" || value === undefined;
  if ((plain || empty) && !required) delete owner[key];
  else owner[key] = value;
  ctx.changed();
}

/** A place beside a control for what is wrong with it. */
export function noted(ctx, path, control, node) {
  const note = h("p", { class: "fault bad", id: unique("fault"), hidden: true });
  control.setAttribute(
    "aria-describedby",
    [control.getAttribute("aria-describedby"), note.id].filter(Boolean).join(" "),
  );
  node.append(note);
  ctx.places.set(path, { control, note });
  return node;
}

/** The control of one value `owner[key]`. */
export function control(ctx, found, owner, key, path, required) {
  const { schema } = found;
  const label = worded(schema.title && schema.title.toLowerCase() !== key ? schema.title : key);
  const set = (value) => assign(ctx, owner, key, value, schema, required);
  const value = owner[key] ?? (found.nullable ? null : schema.default);
  const help = short(schema.description ?? "", 180);
  if (found.kind === "flag") {
    const node = tick(label, Boolean(value), set, help);
    return noted(ctx, path, node.querySelector("input"), node);
  }
  if (found.kind === "choice")
    return made(
      ctx,
      path,
      label,
      menu(
        found.options.map((one) => [one, String(one)]),
        value,
        set,
      ),
      help,
    );
  if (found.kind === "number") return amount(ctx, schema, value, set, path, label, help, found.nullable);
  if (found.kind === "json") return made(ctx, path, label, json(value, set), help || "A JSON value.");
  const input = h("input", {
    type: "text",
    value: value ?? "",
    spellcheck: "false",
    maxlength: schema.maxLength,
    list: null,
    required,
    placeholder: schema.default ? String(schema.default) : null,
  });
  input.addEventListener("input", () => set(input.value));
  const likely = ctx.suggest(key);
  const node = made(ctx, path, label, input, help);
  if (schema.maxLength >= LONG) node.classList.add("long");
  if (likely.length) {
    const options = h(
      "datalist",
      { id: unique("likely") },
      likely.map((one) => h("option", { value: one })),
    );
    input.setAttribute("list", options.id);
    node.append(options);
  }
  return node;
}

const made = (ctx, path, label, input, help) => noted(ctx, path, input, field(label, input, help || null));

function amount(ctx, schema, value, set, path, label, help, nullable) {
  const [low, high] = [schema.minimum ?? schema.exclusiveMinimum, schema.maximum ?? schema.exclusiveMaximum];
  const whole = schema.type === "integer";
  if (!whole && Number.isFinite(low) && Number.isFinite(high) && high - low <= SLIDER && !nullable) {
    const input = h("input", { type: "range", min: low, max: high, step: (high - low) / 100, value: value ?? low });
    const shown = h("output", {}, number(Number(input.value)));
    input.addEventListener("input", () => {
      shown.textContent = number(Number(input.value));
      set(Number(Number(input.value).toFixed(6)));
    });
    const node = made(ctx, path, label, input, help);
    input.after(shown);
    node.classList.add("slider");
    return node;
  }
  const input = h("input", {
    type: "number",
    min: low,
    max: high,
    step: whole ? 1 : "any",
    value: value ?? "",
    inputmode: whole ? "numeric" : "decimal",
  });
  input.addEventListener("input", () => set(input.value === "" ? null : Number(input.value)));
  return made(ctx, path, label, input, help);
}

/** A list of texts, one a line. */
export function lines(ctx, found, owner, key, path) {
  const numbers = ["number", "integer"].includes(resolved(found.items, ctx.root).type);
  const area = h("textarea", { rows: 3, spellcheck: "false", value: (owner[key] ?? []).join("\n") });
  area.addEventListener("input", () => {
    const texts = area.value
      .split("\n")
      .map((one) => one.trim())
      .filter(Boolean);
    assign(ctx, owner, key, numbers ? texts.map(Number) : texts, found.schema, Boolean(found.schema.minItems));
  });
  const likely = ctx.suggest(key);
  return made(
    ctx,
    path,
    worded(key),
    area,
    `${found.schema.description ?? ""} One a line.${likely.length ? ` There are: ${short(likely.join(", "), 120)}.` : ""}`.trim(),
  );
}

function json(value, set) {
  const input = h("input", {
    type: "text",
    spellcheck: "false",
    value: value === undefined ? "" : JSON.stringify(value),
  });
  input.addEventListener("input", () => {
    try {
      set(JSON.parse(input.value));
    } catch {
      set(input.value);
    }
  });
  return input;
}
