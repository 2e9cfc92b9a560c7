// Numbers, times and words, as people read them.

const plain = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const years = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0, useGrouping: false });

/** "1 item", "2 items". */
export const count = (n, one, many = `${one}s`) => `${whole.format(n)} ${n === 1 ? one : many}`;

export const number = (value) => (Number.isFinite(value) ? plain.format(value) : "–");

const three = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });

/** Three figures that count: 0.0123, 4.56, 52, 1,230. */
export function figure(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return whole.format(value);
  return Math.abs(value) < 0.0001 ? value.toExponential(1) : three.format(value);
}

/** As many digits after the point as a metric needs. */
export const metric = (value) => (Number.isFinite(value) ? value.toFixed(4) : "–");

export const signed = (value, digits = 4) =>
  Number.isFinite(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}` : "–";

export const percent = (share) => (Number.isFinite(share) ? `${Math.round(100 * share)}%` : "–");

/** Seconds as "0.3 s", "4 min", "2.1 h". */
export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 90) return `${figure(value)} s`;
  return value < 5400 ? `${figure(value / 60)} min` : `${figure(value / 3600)} h`;
}

/** Seconds since 1970 as a clock, with the date if it was not today. */
export function clock(time) {
  const at = new Date(time * 1000);
  if (Number.isNaN(at.getTime())) return "–";
  const today = at.toDateString() === new Date().toDateString();
  const hours = { hour: "2-digit", minute: "2-digit" };
  return at.toLocaleString(
    undefined,
    today ? { ...hours, second: "2-digit" } : { month: "short", day: "numeric", ...hours },
  );
}

/** "just now", "5 min ago". */
export function ago(time, now = Date.now() / 1000) {
  const past = Math.max(0, now - time);
  if (past < 45) return "just now";
  if (past < 5400) return `${Math.max(1, Math.round(past / 60))} min ago`;
  return past < 129600 ? `${Math.round(past / 3600)} h ago` : `${Math.round(past / 86400)} days ago`;
}

/** The first letters of a long text. */
export const short = (text, most = 60) => (text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text);

/** "a", "a and b", "a, b and 3 more". */
export function listed(names, most = 3) {
  const shown = names.slice(0, most);
  const rest = names.length - shown.length;
  if (rest > 0) return `${shown.join(", ")} and ${rest} more`;
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

/** A column's or a field's name as words: "release_year" is "Release year"; with `letters`, "MMR" stays as it is. */
export function worded(name, letters = false) {
  if (letters && /^[A-Z]{2,5}$/.test(name)) return name;
  const text = String(name)
    .replace(/[_.-]+/g, " ")
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .trim()
    .toLowerCase();
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const YEAR = /year|^released?$/i;
const TIME = /time|date|available|release|created|added|updated/i;
const LENGTH = /^(minutes|runtime|duration)$/i;

/** A cell of the catalogue as text; null where there is nothing to show. */
export function cell(name, value) {
  if (value === null || value === undefined || value === "") return null;
  if (Array.isArray(value)) return value.length && value.length <= 24 ? value.map(String).join(", ") : null;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (TIME.test(name) && value > 1e14)
    return new Date(value / 1000).toLocaleDateString(undefined, { dateStyle: "medium" });
  if (YEAR.test(name) && Number.isInteger(value)) return years.format(value);
  if (/price|cost/i.test(name)) return value.toFixed(2);
  return LENGTH.test(name) ? `${plain.format(value)} min` : plain.format(value);
}

const PICTURE = /^(image|picture|poster|cover|thumbnail|photo)(_?(url|link|uri))?$/i;

/** Address of an item's own picture: an https address in a column that is named for it. */
export function pictureOf(columns) {
  const found = Object.entries(columns).find(
    ([name, value]) => PICTURE.test(name) && /^https:\/\//.test(String(value)),
  );
  return found ? String(found[1]) : null;
}

/** Up to three short facts: the year, categories, the price, as far as there are such columns. */
export function facts(columns) {
  const names = Object.keys(columns);
  const lists = names.filter((name) => Array.isArray(columns[name]) && typeof columns[name][0] === "string");
  const kinds = names.find((name) => /genre|categor|tags?$|kind/i.test(name)) ?? lists[0];
  const wanted = [names.find((name) => YEAR.test(name)), kinds, names.find((name) => /price|cost/i.test(name))];
  return wanted
    .filter((name) => name && columns[name] !== null)
    .map((name) => {
      const value = columns[name];
      return Array.isArray(value) ? value.slice(0, 3).join(", ") : cell(name, value);
    })
    .filter(Boolean)
    .map((text) => short(text, 48));
}

/** The column with a long text about the item, if there is one. */
export const aboutOf = (columns) =>
  ["description", "summary", "overview", "plot", "about"].find(
    (name) => typeof columns[name] === "string" && columns[name],
  );
