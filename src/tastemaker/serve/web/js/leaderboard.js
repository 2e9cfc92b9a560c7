// What was measured: figures with intervals, what each system costs, and which of them nothing cheaper equals.

import { ask, dropped } from "./api.js";
import { fill, h, menu, notice, trouble } from "./dom.js";
import { figure, listed, metric, percent, seconds, signed } from "./format.js";
import { scatter, whisker } from "./plots.js";
import { go, link } from "./router.js";
import { systems } from "./store.js";

const COSTS = {
  ms_per_request: { name: "Time of a request", short: "ms a request", text: (value) => `${figure(value)} ms` },
  fit_seconds: { name: "Time to fit", short: "Fit", text: seconds },
  bundle_mb: { name: "Size on disk", short: "Size", text: (value) => `${figure(value)} MB` },
};

const ENOUGH = 0.9; // share of the best figure that many are content with

export const title = () => "Leaderboard";

export async function open(root, route, signal) {
  let board;
  let served = new Set();
  try {
    [board, served] = await Promise.all([
      ask("/leaderboard", { signal }),
      systems().then(
        (found) => new Set(found.systems.map((one) => one.name)),
        () => new Set(),
      ),
    ]);
  } catch (problem) {
    if (dropped(problem)) throw problem;
    fill(
      root,
      h("h1", { tabindex: "-1" }, "Leaderboard"),
      problem.absent
        ? notice(
            "No leaderboard here",
            "This server was started without one. It shows what a comparison of systems found, once there is one.",
          )
        : trouble(problem, () => open(root, route, signal)),
    );
    return {};
  }
  const rows = board.rows.filter((row) => Number.isFinite(row.value));
  const place = h("div", {});
  const above = h("div", {});
  fill(root, h("h1", { tabindex: "-1" }, "Leaderboard"), above, place);
  if (!rows.length) {
    fill(place, notice("Nothing was measured yet", board.note || null));
    return {};
  }
  const leader = rows.reduce((best, row) => (row.value > best.value ? row : best));
  const tied = rows.filter((row) => row !== leader && row.tied).map((row) => row.system);
  fill(
    above,
    h(
      "p",
      { class: "verdict" },
      h("b", {}, leader.system),
      ` leads with ${board.metric} ${metric(leader.value)}. `,
      tied.length
        ? `${listed(tied, 4)} cannot be told from it.`
        : rows.length > 1
          ? "Every other system is behind it, beyond chance."
          : null,
    ),
    board.note ? h("p", { class: "soft" }, board.note) : null,
  );

  function show({ params }) {
    const costs = Object.keys(COSTS).filter((cost) => rows.some((row) => row[cost] > 0));
    const cost = costs.includes(params.get("cost")) ? params.get("cost") : costs[0];
    const address = (changes) => link("leaderboard", { ...Object.fromEntries(params), ...changes });
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.sort : null;
    fill(
      place,
      table(
        rows,
        board.metric,
        served,
        params.get("sort") ?? "-value",
        (sort) => go(address({ sort }), { replace: true }),
        leader,
      ),
      cost ? frontier(rows, board.metric, cost, costs, (name) => go(address({ cost: name }), { replace: true })) : null,
    );
    if (focused) place.querySelector(`[data-sort="${focused}"]`)?.focus();
  }
  show(route);
  return { update: show };
}

function table(rows, name, served, sort, turn, leader) {
  const [down, key] = sort.startsWith("-") ? [true, sort.slice(1)] : [false, sort];
  const heads = [
    ["system", "System"],
    ["value", name],
    [null, "95% interval"],
    ["gives_up", "Gives up"],
    ...Object.entries(COSTS).map(([cost, { short }]) => [cost, short]),
  ];
  const shown = heads.filter(
    ([one]) => one === null || one === "system" || rows.some((row) => row[one] !== null && row[one] !== undefined),
  );
  const value = (row) => (typeof row[key] === "string" && key !== "system" ? Number.parseFloat(row[key]) : row[key]);
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === y) return 0;
    if (x === null || x === undefined || Number.isNaN(x)) return 1; // what is not known comes last either way
    if (y === null || y === undefined || Number.isNaN(y)) return -1;
    return (x < y ? -1 : 1) * (down ? -1 : 1);
  };
  const ends = rows.flatMap((row) => [row.value, row.low, row.high]).filter(Number.isFinite);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const other = (one) => ((key === one ? !down : one === "value") ? `-${one}` : one); // figures begin with the best, costs with the least
  const cells = {
    system: (row) =>
      h(
        "th",
        { scope: "row" },
        served.has(row.system)
          ? h("a", { href: link("try", { system: row.system }), title: "Try it" }, row.system)
          : row.system,
        row === leader
          ? [" ", h("span", { class: "tag" }, "best")]
          : row.tied
            ? [" ", h("span", { class: "tag off", title: "cannot be told from the best" }, "≈ best")]
            : null,
      ),
    value: (row) => h("td", {}, h("b", {}, metric(row.value))),
    null: (row) =>
      h(
        "td",
        {},
        whisker({ ...row, colour: row === leader || row.tied ? 0 : 7 }, low, high, { width: 190 }),
        h("span", { class: "sr" }, `${metric(row.low)} to ${metric(row.high)}`),
      ),
    gives_up: (row) =>
      h(
        "td",
        {},
        row === leader || row.gives_up === null || row.gives_up === undefined
          ? "–"
          : typeof row.gives_up === "number"
            ? signed(-Math.abs(row.gives_up))
            : row.gives_up,
      ),
  };
  const cost = (one) => (row) =>
    h("td", {}, row[one] === null || row[one] === undefined ? "–" : COSTS[one].text(row[one]));
  return h(
    "div",
    { class: "scroll", role: "region", tabindex: "0", "aria-label": "Leaderboard" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          shown.map(([one, text]) =>
            h(
              "th",
              { scope: "col", "aria-sort": one !== null && one === key ? (down ? "descending" : "ascending") : null },
              one === null
                ? text
                : h("button", { type: "button", "data-sort": one, on: { click: () => turn(other(one)) } }, text),
            ),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        [...rows].sort(order).map((row) =>
          h(
            "tr",
            {},
            shown.map(([one]) => (cells[one] ?? cost(one))(row)),
          ),
        ),
      ),
    ),
  );
}

/** Which rows nothing as cheap or cheaper equals. */
function edge(rows, cost) {
  const known = rows.filter((row) => row[cost] > 0).sort((a, b) => a[cost] - b[cost] || b.value - a.value);
  let best = -Infinity;
  return known.filter((row) => row.value > best && ((best = row.value), true));
}

function frontier(rows, name, cost, costs, choose) {
  const best = edge(rows, cost);
  const { text } = COSTS[cost];
  const marks = rows
    .filter((row) => row[cost] > 0)
    .map((row) => ({
      name: row.system,
      x: row[cost],
      y: row.value,
      low: row.low,
      high: row.high,
      best: best.includes(row),
      says: `${row.system}: ${metric(row.value)} at ${text(row[cost])}`,
    }));
  const words = best.map((row) => `${row.system} (${metric(row.value)} at ${text(row[cost])})`);
  const last = best.at(-1);
  const near = best.find((row) => row.value >= ENOUGH * last.value);
  const cheap =
    near !== last && last.value > 0
      ? ` ${near.system} keeps ${percent(near.value / last.value)} of the best at ${percent(near[cost] / last[cost])} of its cost.`
      : "";
  return h(
    "section",
    { class: "frontier" },
    h(
      "div",
      { class: "headrow" },
      h("h2", {}, "What accuracy costs"),
      h(
        "label",
        { class: "inline" },
        h("span", {}, "Cost"),
        menu(
          costs.map((one) => [one, COSTS[one].name]),
          cost,
          choose,
        ),
      ),
    ),
    h(
      "p",
      {},
      `Nothing as cheap or cheaper equals ${words.length > 1 ? `these, the cheapest first: ${words.join(", ")}.` : `${words[0]}.`}${cheap}`,
    ),
    scatter(
      `${name} against ${COSTS[cost].name.toLowerCase()} of ${marks.length} systems. On the frontier: ${words.join(", ")}.`,
      marks,
      { xName: COSTS[cost].name.toLowerCase(), yName: name, format: text },
    ).node,
  );
}
