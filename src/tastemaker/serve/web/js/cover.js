// A picture for every item: its own, where the catalogue has one, else a poster drawn from its id, always the same.

import { h, s } from "./dom.js";
import { pictureOf } from "./format.js";

const WIDE = 200;
const HIGH = 300;

// ground, far, near, light
const PALETTES = [
  ["#1d3557", "#457b9d", "#a8dadc", "#f4a261"],
  ["#2d1e2f", "#6d3b47", "#c7796b", "#f6d6ad"],
  ["#0b3d3a", "#1f7a6d", "#7cc6a4", "#fdf0c4"],
  ["#f2e3c6", "#e5a663", "#b5523b", "#2e2a3b"],
  ["#22223b", "#4a4e69", "#9a8c98", "#f2e9e4"],
  ["#e8eef2", "#9fb8c8", "#4f7189", "#d9623f"],
  ["#3a0f2b", "#872a52", "#e0607e", "#ffd9a0"],
  ["#10243a", "#2c5f8a", "#f0b949", "#f8f1de"],
  ["#dfe7d5", "#9bb58c", "#4f7552", "#e08e45"],
  ["#2b2d42", "#5b6ee1", "#a5b1f5", "#ff8a5b"],
  ["#f7ddd4", "#e8998d", "#a14a5b", "#2a3d55"],
  ["#15302b", "#3f6b4f", "#d4a747", "#f5ead0"],
];

/** An even stream of numbers in [0, 1) that a text decides. */
function stream(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const circle = (x, y, r, fill, more = {}) =>
  s("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: r.toFixed(1), fill, ...more });
const box = (x, y, width, height, fill, more = {}) =>
  s("rect", { x: x.toFixed(1), y: y.toFixed(1), width: width.toFixed(1), height: height.toFixed(1), fill, ...more });
const path = (d, fill, more = {}) => s("path", { d, fill, ...more });
const steps = (n) => Array.from({ length: n }, (_, at) => at);

const DRAWINGS = [
  function hills(rng, [, far, near, light]) {
    const wave = (y, high, fill) => {
      const [a, b] = [y - high * (0.4 + rng()), y + high * (rng() - 0.3)];
      return path(`M0 ${y} C60 ${a} 90 ${a} 120 ${y - 8} S170 ${b} ${WIDE} ${y - high * rng()} V${HIGH} H0Z`, fill);
    };
    return [circle(50 + 100 * rng(), 70 + 50 * rng(), 26 + 18 * rng(), light), wave(180, 50, far), wave(235, 40, near)];
  },
  function arcs(rng, [, far, near, light]) {
    const [x, y] = [rng() < 0.5 ? 0 : WIDE, rng() < 0.3 ? 0 : HIGH];
    return steps(6).map((at) => circle(x, y, 230 - at * 36, [far, near, light][at % 3]));
  },
  function dots(rng, [, far, near, light]) {
    const turn = rng() * 2;
    return steps(40).map((at) => {
      const [column, row] = [at % 5, Math.floor(at / 5)];
      const size = 5 + 11 * Math.abs(Math.sin(column * 0.9 + row * 0.6 + turn));
      return circle(20 + column * 40, 20 + row * 37, size, rng() < 0.12 ? light : row % 2 ? far : near);
    });
  },
  function stripes(rng, [, far, near, light]) {
    const lean = 80 + 120 * rng();
    const bars = steps(7).map((at) =>
      path(`M${at * 62 - lean} ${HIGH} l${lean} -${HIGH} h30 l-${lean} ${HIGH}Z`, at % 2 ? near : far),
    );
    return [...bars, circle(60 + 80 * rng(), 100 + 100 * rng(), 44, light)];
  },
  function arches(rng, [, far, near, light]) {
    const x = 70 + 60 * rng();
    const arch = (half, top, fill) =>
      path(`M${x - half} ${HIGH} V${top + half} a${half} ${half} 0 0 1 ${2 * half} 0 V${HIGH}Z`, fill);
    return [circle(WIDE - x, 52, 20, light), arch(88, 70, far), arch(62, 112, near), arch(36, 154, light)];
  },
  function towers(rng, [ground, far, near, light]) {
    const row = (n, low, fill) =>
      steps(n).map((at) => {
        const high = low * (0.5 + 0.6 * rng());
        return box((at * WIDE) / n, HIGH - high, WIDE / n - 5, high, fill);
      });
    const lit = steps(9).map(() => box(14 + 172 * rng(), 225 + 60 * rng(), 5, 8, light));
    return [
      circle(45 + 110 * rng(), 62, 24, light),
      row(5, 190, far),
      row(4, 110, near),
      lit,
      box(0, 292, WIDE, 8, ground),
    ];
  },
  function waves(rng, [, far, near, light]) {
    const line = (y, stroke) =>
      path(
        `M-10 ${y} ${steps(6)
          .map((at) => `q20 ${at % 2 ? 24 : -24} 40 0`)
          .join(" ")}`,
        "none",
        { stroke, "stroke-width": 9, "stroke-linecap": "round" },
      );
    const start = 130 + 30 * rng();
    return [circle(60 + 80 * rng(), 78, 38, light), steps(6).map((at) => line(start + at * 27, at % 2 ? near : far))];
  },
  function peaks(rng, [, far, near, light]) {
    const peak = (x, y, half, fill) => path(`M${x - half} ${HIGH} L${x} ${y} L${x + half} ${HIGH}Z`, fill);
    const x = 70 + 60 * rng();
    return [
      circle(WIDE - x, 70, 22, light),
      peak(x - 40, 150, 110, far),
      peak(x + 50, 120 + 30 * rng(), 120, near),
      path(`M0 ${HIGH} V268 L${WIDE} 246 V${HIGH}Z`, light),
    ];
  },
  function tiles(rng, [, far, near, light]) {
    return steps(24).map((at) => {
      const [x, y] = [(at % 4) * 50, Math.floor(at / 4) * 50];
      const turn = Math.floor(rng() * 4) * 90;
      const fill = [far, near, light, near][Math.floor(rng() * 4)];
      return path("M0 0 h50 a50 50 0 0 1 -50 50Z", fill, { transform: `translate(${x} ${y}) rotate(${turn} 25 25)` });
    });
  },
  function orbits(rng, [, far, near, light]) {
    const turn = Math.round(60 * rng() - 30);
    const ring = (wide, high, stroke) =>
      s("ellipse", {
        cx: 100,
        cy: 150,
        rx: wide,
        ry: high,
        fill: "none",
        stroke,
        "stroke-width": 5,
        transform: `rotate(${turn} 100 150)`,
      });
    const stars = steps(14).map(() => circle(WIDE * rng(), HIGH * rng(), 1.5 + 2 * rng(), light));
    return [
      stars,
      ring(110, 34, far),
      ring(84, 60, near),
      circle(100, 150, 30, light),
      circle(100 + 60 * rng(), 106, 9, near),
    ];
  },
];

/** The drawing of an id. */
export function drawn(id) {
  const rng = stream(String(id));
  const palette = PALETTES[Math.floor(rng() * PALETTES.length)];
  const drawing = DRAWINGS[Math.floor(rng() * DRAWINGS.length)];
  return s(
    "svg",
    {
      viewBox: `0 0 ${WIDE} ${HIGH}`,
      preserveAspectRatio: "xMidYMid slice",
      "aria-hidden": "true",
      focusable: "false",
    },
    box(0, 0, WIDE, HIGH, palette[0]),
    ...drawing(rng, palette).flat(2),
  );
}

/** An item's picture in a frame of fixed shape; `alt` where no words stand beside it. */
export function cover(item, columns = {}, { alt = "", eager = false } = {}) {
  const frame = h("div", { class: "cover" }, drawn(item));
  const address = pictureOf(columns);
  if (address !== null) {
    const image = h("img", {
      src: address,
      alt,
      width: WIDE,
      height: HIGH,
      loading: eager ? "eager" : "lazy",
      decoding: "async",
      referrerpolicy: "no-referrer",
      on: { error: () => image.remove() },
    });
    frame.append(image);
  } else if (alt) {
    frame.setAttribute("role", "img");
    frame.setAttribute("aria-label", alt);
  }
  return frame;
}

/** Show the item's own picture in a cover that was drawn before its columns were known. */
export function dress(frame, columns) {
  const address = pictureOf(columns);
  if (address === null || frame.querySelector("img")) return;
  const image = h("img", {
    src: address,
    alt: "",
    width: WIDE,
    height: HIGH,
    loading: "lazy",
    decoding: "async",
    referrerpolicy: "no-referrer",
    on: { error: () => image.remove() },
  });
  frame.append(image);
}
