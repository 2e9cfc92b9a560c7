// Plots as SVG, drawn for the width there is and again when it changes. They take the page's colours.

import { h, s } from "./dom.js";
import { figure } from "./format.js";

const LETTER = 6.6; // width of a letter of the labels, about
const LEFT = 46;
const FOOT = 24;

/** A linear or logarithmic scale with round ticks. */
export function axis(values, start, stop, { zero = false, log = false, n = 4 } = {}) {
  const there = values.filter((one) => Number.isFinite(one) && (!log || one > 0));
  let [low, high] = there.length ? [Math.min(...there), Math.max(...there)] : [log ? 1 : 0, log ? 10 : 1];
  if (zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  if (log) return logAxis(low, high, start, stop);
  if (high - low < 1e-12)
    [low, high] =
      zero && high > 0 ? [0, high * 1.2] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const step = rounded((high - low) / n);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  const ticks = Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
  const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  const at = (value) => start + ((value - ticks[0]) / (ticks.at(-1) - ticks[0])) * (stop - start);
  return Object.assign(at, {
    ticks,
    start,
    stop,
    text: (tick) => (Math.abs(tick) >= 10000 ? figure(tick) : (tick + 0).toFixed(digits)),
  });
}

function logAxis(low, high, start, stop) {
  const pad = Math.max(0.08, (Math.log10(high) - Math.log10(low)) * 0.06);
  const [a, b] = [Math.log10(low) - pad, Math.log10(high) + pad];
  const decades = Array.from({ length: Math.ceil(b) - Math.floor(a) + 1 }, (_, at) => 10 ** (Math.floor(a) + at));
  const fine = decades.flatMap((one) => [one, 2 * one, 5 * one]);
  const within = (ticks) => ticks.filter((one) => Math.log10(one) >= a && Math.log10(one) <= b);
  const ticks = within(decades).length > 2 ? within(decades) : within(fine);
  const at = (value) => start + ((Math.log10(value) - a) / (b - a)) * (stop - start);
  return Object.assign(at, { ticks, start, stop, text: figure });
}

function rounded(step) {
  const size = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].find((one) => one * size >= step * 0.999) * size;
}

/** A box that is drawn anew by `draw(width, height)` whenever its width changes. */
export function plot(label, draw, height = 220) {
  const svg = s("svg", { class: "plot", role: "img", "aria-label": label });
  const node = h("div", { class: "plot-box", style: { height: `${height}px` } }, svg);
  let drawn = 0;
  const again = () => {
    const width = Math.floor(node.clientWidth);
    if (!width) return;
    drawn = width;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren(...draw(width, height).flat(Infinity).filter(Boolean));
  };
  new ResizeObserver(() => {
    if (Math.floor(node.clientWidth) !== drawn) again();
  }).observe(node);
  return { node, again };
}

const line = (x1, y1, x2, y2, props = {}) => s("line", { x1, y1, x2, y2, ...props });
const words = (x, y, text, props = {}) => s("text", { x, y, ...props }, text);
const path = (points) => points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function rows(y, width) {
  return y.ticks.map((tick) => [
    line(LEFT, y(tick), width, y(tick), { class: "grid" }),
    words(LEFT - 8, y(tick) + 4, y.text(tick), { class: "tick", "text-anchor": "end" }),
  ]);
}

function columns(x, height, text = x.text) {
  const most = Math.max(2, Math.floor((x.stop - x.start) / 84));
  const every = Math.ceil(x.ticks.length / most);
  return x.ticks
    .filter((_, at) => at % every === 0)
    .map((tick) => {
      const label = text(tick);
      const end = x(tick) + (label.length * LETTER) / 2 > x.stop; // it would stick out
      return words(end ? x.stop : x(tick), height - 6, label, { class: "tick", "text-anchor": end ? "end" : "middle" });
    });
}

const SHORTEST = 600; // seconds that a plot over time shows at least

/**
 * Values over time.
 *
 * @param series () -> [{name, colour: 0..7, points: [[time, value]], area}]
 */
export function over(label, series, { height = 190, format = figure, clock } = {}) {
  return plot(
    label,
    (width) => {
      const lines = series();
      const all = lines.flatMap((one) => one.points);
      const to = Math.max(...all.map((one) => one[0]));
      const from = Math.min(to - SHORTEST, ...all.map((one) => one[0]));
      const x = Object.assign((time) => LEFT + 6 + ((time - from) / Math.max(to - from, 1)) * (width - LEFT - 14), {
        start: LEFT,
        stop: width,
        ticks: spread(from, to, 4),
      });
      const y = axis(
        all.map((one) => one[1]),
        height - FOOT,
        10,
        { zero: true, n: 3 },
      );
      y.text = format;
      return [
        rows(y, width),
        columns(x, height, clock),
        lines.map((one) => {
          const points = one.points
            .filter((each) => Number.isFinite(each[1]))
            .map(([time, value]) => [x(time), y(value)]);
          if (!points.length) return null;
          const under = one.area
            ? s("path", {
                d: `${path(points)}L${points.at(-1)[0]} ${y(0)}L${points[0][0]} ${y(0)}Z`,
                class: `area c${one.colour}`,
              })
            : null;
          const only =
            points.length === 1
              ? s("circle", { cx: points[0][0], cy: points[0][1], r: 3, class: `dot c${one.colour}` })
              : null;
          return [under, s("path", { d: path(points), class: `line c${one.colour}` }), only];
        }),
      ];
    },
    height,
  );
}

const spread = (from, to, n) => Array.from({ length: n + 1 }, (_, at) => from + ((to - from) * at) / n);

/** A difference that is watched over time, with its band; where the band leaves zero it is told from chance. */
export function sequence(label, points, { height = 260, clock } = {}) {
  return plot(
    label,
    (width) => {
      const times = points.map((one) => one.time);
      const [from, to] = [Math.min(...times), Math.max(...times)];
      const at = (time) => LEFT + 14 + ((time - from) / Math.max(to - from, 1)) * (width - LEFT - 24);
      const x = Object.assign(at, { start: LEFT, stop: width, ticks: spread(from, to, 4) });
      const ends = points.slice(Math.floor(points.length / 4)).flatMap((one) => [one.low, one.high, one.difference]); // the first bands are very wide
      const y = axis(ends, height - FOOT, 10, { zero: true });
      const [least, most] = [y.ticks[0], y.ticks.at(-1)];
      const inside = (value) => y(Math.max(least, Math.min(most, value)));
      const sure = points.filter((one) => Number.isFinite(one.low) && Number.isFinite(one.high));
      const band = path([
        ...sure.map((one) => [at(one.time), inside(one.high)]),
        ...sure.toReversed().map((one) => [at(one.time), inside(one.low)]),
      ]);
      return [
        rows(y, width),
        columns(x, height, clock),
        sure.length ? s("path", { d: `${band}Z`, class: "area c0" }) : null,
        line(LEFT, y(0), width, y(0), { class: "zero" }),
        s("path", { d: path(points.map((one) => [at(one.time), inside(one.difference)])), class: "line c0" }),
      ];
    },
    height,
  );
}

/**
 * Value against cost, with the frontier of those that nothing cheaper equals.
 *
 * @param marks [{name, x, y, low, high, best}] where `best` marks the frontier
 */
export function scatter(label, marks, { height = 340, xName, yName, format = figure } = {}) {
  return plot(
    label,
    (width) => {
      const x = axis(
        marks.map((one) => one.x),
        LEFT + 24,
        width - 20,
        { log: true },
      );
      const y = axis(
        marks.flatMap((one) => [one.y, one.low, one.high]),
        height - FOOT - 20,
        26,
      );
      const edge = marks.filter((one) => one.best).sort((a, b) => a.x - b.x);
      const steps = edge.flatMap((one, at) =>
        at
          ? [
              [x(one.x), y(edge[at - 1].y)],
              [x(one.x), y(one.y)],
            ]
          : [[x(one.x), y(one.y)]],
      );
      const taken = marks.map((one) => ({
        left: x(one.x) - 7,
        right: x(one.x) + 7,
        top: y(one.y) - 7,
        bottom: y(one.y) + 7,
      }));
      return [
        rows(y, width),
        columns(x, height - 18, format),
        words(LEFT, 12, yName, { class: "tick" }),
        words(width - 4, height - 4, `${xName} →`, { class: "tick", "text-anchor": "end" }),
        s("path", { d: path(steps), class: "edge" }),
        marks.map((one) => [
          Number.isFinite(one.low)
            ? line(x(one.x), y(one.low), x(one.x), y(one.high), { class: `whisker ${one.best ? "c0" : "c7"}` })
            : null,
          s(
            "circle",
            { cx: x(one.x), cy: y(one.y), r: 6, class: `dot ${one.best ? "c0" : "c7"}` },
            s("title", {}, one.says),
          ),
          named(one, x(one.x), y(one.y), width, taken),
        ]),
      ];
    },
    height,
  );
}

/** A label beside a mark, where it covers no other. */
function named(one, x, y, width, taken) {
  const long = one.name.length * LETTER + 4;
  const places = [
    [x + 11, y + 4],
    [x - 11 - long, y + 4],
    [x - long / 2, y - 13],
    [x - long / 2, y + 22],
    [x + 9, y - 12],
    [x + 9, y + 18],
  ];
  const boxed = ([left, base]) => ({ left, right: left + long, top: base - 11, bottom: base + 3 });
  const free = (box) =>
    box.left > LEFT - 6 &&
    box.right < width &&
    taken.every(
      (each) => box.right < each.left || box.left > each.right || box.bottom < each.top || box.top > each.bottom,
    );
  const place = places.find((each) => free(boxed(each))) ?? places[x + long + 12 < width ? 0 : 1];
  taken.push(boxed(place));
  return words(place[0], place[1], one.name, { class: `name ${one.best ? "strong" : ""}` });
}

/** A value with its interval on a scale that all rows of a table share. */
export function whisker(row, low, high, { width = 150, zero = false } = {}) {
  const at = (value) => 6 + ((value - low) / (high - low || 1)) * (width - 12);
  const known = Number.isFinite(row.low) && Number.isFinite(row.high);
  return s(
    "svg",
    { class: "plot whisk", viewBox: `0 0 ${width} 20`, width, height: 20, "aria-hidden": "true" },
    line(0, 10, width, 10, { class: "grid" }),
    zero && low < 0 && high > 0 ? line(at(0), 2, at(0), 18, { class: "zero" }) : null,
    known ? line(at(row.low), 10, at(row.high), 10, { class: `whisker wide c${row.colour ?? 0}` }) : null,
    s("circle", { cx: at(row.value), cy: 10, r: 3.6, class: `dot c${row.colour ?? 0}` }),
  );
}

/** What the colours of a plot stand for. */
export const legend = (entries) =>
  h(
    "ul",
    { class: "legend" },
    entries.map(([name, colour]) => h("li", {}, h("i", { class: `swatch c${colour}`, "aria-hidden": "true" }), name)),
  );
