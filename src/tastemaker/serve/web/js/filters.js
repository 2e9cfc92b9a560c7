// Filters made from the catalogue's columns: parameters of the address, controls for them, and the SQL that they mean.

import { h, button, field, menu, settled, unique } from "./dom.js";
import { cell, count, number, worded } from "./format.js";
import { pack, unpack } from "./router.js";

const PREFIX = "f.";
const SHOWN = 10; // values that are offered at once

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;
const text = (value) => `'${value.replaceAll("'", "''")}'`;
const isNumber = (part) => part !== "" && Number.isFinite(Number(part));

/** The parameters that filter, of an address. */
export const filtersOf = (params) =>
  Object.fromEntries([...params].filter(([name]) => name.startsWith(PREFIX) || name === "where"));

/**
 * The condition that parameters mean, or null.
 *
 * A range is "low..high", words to look for "~words", a flag "yes" or "no", values a list with commas.
 */
export function condition(params, columns) {
  const parts = [];
  for (const [key, value] of params) {
    if (key === "where" && value.trim()) parts.push(`(${value})`);
    if (!key.startsWith(PREFIX)) continue;
    const name = key.slice(PREFIX.length);
    if (!(name in columns)) continue;
    const column = quoted(name);
    if (columns[name] === "Boolean") {
      parts.push(value === "no" ? `NOT ${column}` : column);
    } else if (value.startsWith("~")) {
      parts.push(`strpos(lower(${column}), ${text(value.slice(1).toLowerCase())}) > 0`);
    } else if (/^(Int|UInt|Float|Decimal)/.test(columns[name])) {
      const [low, high = ""] = value.split("..");
      if (isNumber(low)) parts.push(`${column} >= ${Number(low)}`);
      if (isNumber(high)) parts.push(`${column} <= ${Number(high)}`);
    } else {
      const values = unpack(value).map(text);
      const one = columns[name].startsWith("List")
        ? (each) => `array_contains(${column}, ${each})`
        : (each) => `${column} = ${each}`;
      if (values.length) parts.push(values.length > 1 ? `(${values.map(one).join(" OR ")})` : one(values[0]));
    }
  }
  return parts.length ? parts.join(" AND ") : null;
}

/** How many filters are set. */
export const setIn = (params) => Object.keys(filtersOf(params)).length;

/**
 * Controls for the columns.
 *
 * @param change called with (name, value or null) when one is set or cleared
 */
export function controls(columns, params, change) {
  const made = (column) =>
    MAKERS[column.kind]?.(column, params.get(PREFIX + column.name), (value) => change(PREFIX + column.name, value));
  const first = columns
    .filter(handy)
    .sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind))
    .slice(0, FIRST);
  const rest = columns.filter((column) => !first.includes(column));
  const drawn = rest.map(made).filter(Boolean);
  const sql = h("input", {
    type: "text",
    value: params.get("where") ?? "",
    spellcheck: "false",
    placeholder: "year > 1990 AND price < 5",
    on: { change: () => change("where", sql.value.trim() || null) },
  });
  return [
    ...first.map(made),
    drawn.length
      ? h(
          "details",
          { class: "plain", open: rest.some((column) => params.has(PREFIX + column.name)) },
          h("summary", {}, "More columns"),
          drawn,
        )
      : null,
    h(
      "details",
      { class: "plain", open: Boolean(params.get("where")) },
      h("summary", {}, "A condition of your own"),
      field("Condition, as SQL", sql, "Over the catalogue's columns; holds beside the filters above."),
    ),
  ];
}

const FIRST = 4; // controls that are seen without asking
const ORDER = ["categories", "number", "flag", "category"];
const isTime = (column) => column.whole && Math.abs(column.high) > 1e14; // microseconds since 1970

/** Whether a column has a control that most people can use at once. */
function handy(column) {
  if (column.kind === "number") return column.high > column.low && !isTime(column);
  return (
    column.kind === "flag" ||
    ((column.kind === "categories" || column.kind === "category") && column.distinct > 1 && column.distinct <= 60)
  );
}

const MAKERS = { number: range, flag, category: choices, categories: choices, text: words };

function range(column, value, set) {
  if (column.low === null || column.low === undefined || column.low === column.high) return null;
  if (isTime(column)) return period(column, value, set);
  const [from, to = ""] = (value ?? "").split("..");
  const label = worded(column.name);
  const end = (name, given, limit) =>
    h("input", {
      type: "number",
      inputmode: "decimal",
      step: column.whole ? 1 : "any",
      value: given,
      placeholder: cell(column.name, limit)?.replace(/ min$/, "") ?? number(limit),
      "aria-label": `${label}, ${name}`,
      on: { change: () => set(low.value || high.value ? `${low.value}..${high.value}` : null) },
    });
  const [low, high] = [end("at least", from, column.low), end("at most", to, column.high)];
  return h(
    "fieldset",
    { class: "field range" },
    h("legend", {}, label),
    h("div", { class: "row" }, low, h("span", { "aria-hidden": "true" }, "to"), high),
  );
}

const DAY = 86_400_000_000;
const day = (time) => (isNumber(time) ? new Date(Number(time) / 1000).toISOString().slice(0, 10) : "");

function period(column, value, set) {
  const [from, to = ""] = (value ?? "").split("..");
  const label = worded(column.name);
  const start = (node) => (node.value ? Date.parse(node.value) * 1000 : "");
  const stop = (node) => (node.value ? Date.parse(node.value) * 1000 + DAY - 1 : "");
  const end = (name, given) =>
    h("input", {
      type: "date",
      value: day(given),
      min: day(column.low),
      max: day(column.high),
      "aria-label": `${label}, ${name}`,
      on: { change: () => set(low.value || high.value ? `${start(low)}..${stop(high)}` : null) },
    });
  const [low, high] = [end("from", from), end("until", to)];
  return h("fieldset", { class: "field range" }, h("legend", {}, label), low, high);
}

function flag(column, value, set) {
  const label = worded(column.name);
  return field(
    label,
    menu(
      [
        ["", "either"],
        ["yes", "yes"],
        ["no", "no"],
      ],
      value ?? "",
      (chosen) => set(chosen || null),
    ),
  );
}

function words(column, value, set) {
  const input = h("input", { type: "search", value: (value ?? "").replace(/^~/, ""), placeholder: "has the words …" });
  const later = settled(() => set(input.value.trim() ? `~${input.value.trim()}` : null), 400);
  input.addEventListener("input", later);
  return field(worded(column.name), input);
}

function choices(column, value, set) {
  const chosen = new Set(unpack(value ?? ""));
  const values = column.values.map((one) => one.value);
  if (!values.length || column.distinct <= 1) return null;
  const counts = new Map(column.values.map((one) => [one.value, one.count]));
  const label = worded(column.name);
  const title = unique("choices");
  const place = h("div", { class: "chips", role: "group", "aria-labelledby": title });
  const turn = (one) => {
    if (!chosen.delete(one)) chosen.add(one);
    set(chosen.size ? pack([...chosen]) : null);
    draw();
    [...place.querySelectorAll("button")].find((node) => node.dataset.value === one)?.focus();
  };
  const chip = (one) => {
    const node = h(
      "button",
      {
        type: "button",
        class: "chip",
        "aria-pressed": String(chosen.has(one)),
        "data-value": one,
        title: counts.has(one) ? count(counts.get(one), "item") : null,
        on: { click: () => turn(one) },
      },
      one,
    );
    return node;
  };
  const listId = unique("values");
  const more = h("input", {
    type: "text",
    list: listId,
    placeholder: `${count(column.distinct, "value")} …`,
    "aria-label": `Add to ${label.toLowerCase()}`,
    on: {
      change: () => {
        if (more.value.trim() && !chosen.has(more.value.trim())) turn(more.value.trim());
        more.value = "";
      },
    },
  });
  function draw() {
    const shown = [...new Set([...chosen, ...values.slice(0, column.distinct > 60 ? 0 : SHOWN)])];
    place.replaceChildren(...shown.map(chip));
  }
  draw();
  const rest =
    column.distinct > SHOWN
      ? [
          more,
          h(
            "datalist",
            { id: listId },
            values.map((one) => h("option", { value: one })),
          ),
        ]
      : null;
  return h("div", { class: "field" }, h("span", { class: "label", id: title }, label), place, rest);
}

/** A button that clears all filters, where there are any. */
export function clearing(params, clear) {
  return setIn(params) ? button(`Clear ${count(setIn(params), "filter")}`, clear, { kind: "quiet" }) : null;
}
