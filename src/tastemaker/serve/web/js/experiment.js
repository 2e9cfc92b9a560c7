// One experiment: what its arms did, how sure that is, and what can be done about it.

import { ask, dropped, part } from "./api.js";
import { button, confirmed, fill, h, menu, notice, toast, trouble } from "./dom.js";
import { clock, count, figure, metric, percent, signed, worded } from "./format.js";
import { sequence, whisker } from "./plots.js";
import { link } from "./router.js";

export const KINDS = { ab: "A/B test", interleave: "interleaving", shadow: "in the shadow" };
const VERDICTS = {
  better: "An arm is better",
  worse: "The control is better",
  "not yet": "Not decided yet",
  "harm: stop": "An arm does harm",
  invalid: "The arms cannot be compared",
  none: "Nothing is compared",
};

const DRAFT = { message: "This is a draft. Once it is started, its arms answer and are measured." };

/** "like/list", "click.any/user": how the server names a metric. */
export const metricName = (one) =>
  typeof one === "string"
    ? one
    : `${one.event}${one.of && one.of !== "count" ? `.${one.of}` : ""}/${one.per ?? "list"}`;
const inSeconds = (time) => (time > 1e12 ? time / 1e6 : time);

export const title = (route) => (route.id ? `Experiment ${route.id}` : "Experiments");

export async function open(root, route, signal) {
  if (!route.id) {
    location.replace(link("live"));
    return {};
  }
  const head = h("h1", { tabindex: "-1" }, route.id);
  const place = h("div", {});
  fill(root, h("p", { class: "small" }, h("a", { href: link("live") }, "← Live")), head, place);

  async function load() {
    try {
      const found = await ask("/experiments", { signal, admin: true });
      const about = found.experiments.find((one) => one.name === route.id);
      if (!about) {
        fill(place, notice("No such experiment", `There is none of the name ${route.id}.`));
        return;
      }
      draw(about, about.state === "draft" ? { fault: DRAFT } : await result());
    } catch (problem) {
      if (dropped(problem)) return;
      fill(
        place,
        problem.absent ? notice("No experiments here", "This server runs no experiments.") : trouble(problem, load),
      );
    }
  }

  const result = () =>
    ask(`/experiments/${part(route.id)}`, { signal, admin: true }).catch((problem) => {
      if (problem.status !== 422) throw problem;
      return { fault: problem }; // there is no traffic yet
    });

  function draw(
    about,
    { fault = null, arms = [], guardrails = [], path = [], shadows = [], warnings = [], verdict, explanation },
  ) {
    fill(head, route.id, " ", h("span", { class: `tag ${about.state === "running" ? "" : "off"}` }, about.state));
    const names = [...new Set(path.map((one) => one.arm))];
    fill(
      place,
      h(
        "p",
        { class: "soft" },
        [
          KINDS[about.kind] ?? about.kind,
          `judged by ${metricName(about.primary)}`,
          about.started ? `since ${clock(inSeconds(about.started))}` : null,
        ]
          .filter(Boolean)
          .join(" · "),
      ),
      fault === null
        ? [h("p", { class: "verdict" }, h("b", {}, VERDICTS[verdict] ?? verdict), ". ", explanation)]
        : null,
      warnings.map((one) => h("p", { class: "warn" }, one)),
      actions(about, fault === null ? arms : []),
      fault === null
        ? armsTable(arms, about)
        : notice("Nothing to say yet", fault.message, fault.hint && h("p", { class: "soft" }, fault.hint)),
      names.map((name) =>
        course(
          name,
          path.filter((one) => one.arm === name),
          about,
        ),
      ),
      guardrails.length
        ? h("section", {}, h("h2", {}, "Guardrails"), h("ul", { class: "rails" }, guardrails.map(rail)))
        : null,
      shadows.length
        ? h("section", {}, h("h2", {}, "Lists that nobody saw"), h("ul", { class: "rails" }, shadows.map(shadow)))
        : null,
      h(
        "details",
        { class: "plain" },
        h("summary", {}, "How it is set up"),
        h("pre", {}, JSON.stringify(about, null, 2)),
      ),
    );
  }

  function actions(about, arms) {
    const names = Object.keys(about.arms);
    let arm =
      arms.filter((one) => Number.isFinite(one.difference)).sort((a, b) => b.difference - a.difference)[0]?.arm ??
      names.find((one) => one !== about.control);
    async function post(what, body) {
      const done = await ask(`/admin/experiments/${part(route.id)}/${what}`, { body, signal, admin: true });
      await load();
      head.focus();
      return done;
    }
    const trying = (work) => () =>
      work().catch((problem) => {
        if (!dropped(problem)) toast(`That did not work: ${problem.message}`);
      });
    const start = trying(async () => {
      await post("start", {});
      toast(`${route.id} is running.`);
    });
    const stop = trying(async () => {
      if (
        !(await confirmed(
          "Stop the experiment?",
          `Everybody gets ${about.arms[about.control].serve} again. What was measured stays.`,
          "Stop it",
        ))
      )
        return;
      await post("stop", {});
      toast(`${route.id} has stopped.`);
    });
    const promote = trying(async () => {
      const promise = `The experiment ends, and everybody gets ${about.arms[arm].serve}, if the figures bear it out.`;
      if (!(await confirmed(`Promote ${arm}?`, promise, "Promote it", "main"))) return;
      let done = await post("promote", { arm });
      if (done.action === "wait") {
        const doubt = `${done.why}. Nothing was changed so far.`;
        if (await confirmed("The figures do not bear it out", doubt, "Promote it all the same"))
          done = await post("promote", { arm, force: true });
      }
      toast(done.action === "wait" ? "Nothing was changed." : `${done.serve} is served to everybody.`);
    });
    return h(
      "div",
      { class: "row acts" },
      about.state === "draft" ? button("Start", start, { kind: "main" }) : null,
      about.state === "running" ? button("Stop", stop) : null,
      about.state !== "draft" && about.kind !== "shadow"
        ? [
            h(
              "label",
              { class: "inline" },
              h("span", {}, "Arm"),
              menu(
                names.map((one) => [one, one]),
                arm,
                (one) => {
                  arm = one;
                },
              ),
            ),
            button("Promote", promote),
          ]
        : null,
    );
  }

  await load();
  return {};
}

/** Whether a difference is for certain, and which way: 1 better, -1 worse, 0 not decided. */
function decided(one, about) {
  const way = about.primary.direction === "down" ? -1 : 1;
  return one.diff_low > 0 ? way : one.diff_high < 0 ? -way : 0;
}

function armsTable(arms, about) {
  if (!arms.length) return null;
  const ends = (keys) => {
    const all = arms.flatMap((row) => keys.map((key) => row[key])).filter(Number.isFinite);
    return all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  };
  const [low, high] = ends(["mean", "low", "high"]);
  const [least, most] = ends(["difference", "diff_low", "diff_high"]);
  const rows = arms.map((one) => {
    const way = decided(one, about);
    return h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        one.arm,
        one.arm === about.control ? [" ", h("span", { class: "tag off" }, "control")] : null,
      ),
      h("td", {}, figure(one.units)),
      h("td", {}, figure(one.lists)),
      h(
        "td",
        {},
        h("b", {}, metric(one.mean)),
        " ",
        Number.isFinite(one.mean)
          ? whisker({ value: one.mean, low: one.low, high: one.high }, low, high, { width: 110 })
          : null,
        between(one.low, one.high, metric),
      ),
      Number.isFinite(one.difference)
        ? h(
            "td",
            { class: way > 0 ? "good" : way < 0 ? "bad" : null },
            h("b", {}, signed(one.difference)),
            " ",
            whisker(
              { value: one.difference, low: one.diff_low, high: one.diff_high, colour: way ? 0 : 7 },
              Math.min(least, 0),
              Math.max(most, 0),
              { width: 110, zero: true },
            ),
            between(one.diff_low, one.diff_high, signed),
          )
        : h("td", { class: "soft" }, "–"),
      h("td", {}, Number.isFinite(one.p) ? (one.p < 0.001 ? "< 0.001" : one.p.toFixed(3)) : "–"),
    );
  });
  const heads = [
    "Arm",
    worded(`${about.unit ?? "user"}s`),
    "Lists",
    metricName(about.primary),
    "Difference to the control",
    "p",
  ];
  return h(
    "div",
    { class: "scroll", role: "region", tabindex: "0", "aria-label": "Arms" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((one) => h("th", { scope: "col" }, one)),
        ),
      ),
      h("tbody", {}, rows),
    ),
  );
}

const between = (low, high, text) =>
  Number.isFinite(low) ? h("small", { class: "ends" }, `${text(low)} to ${text(high)}`) : null;

/** The difference over time with its band. */
function course(name, rows, about) {
  const path = rows
    .map((one) => ({ ...one, time: inSeconds(one.time) }))
    .filter((one) => Number.isFinite(one.difference));
  if (path.length < 2) return null;
  const last = path.at(-1);
  const ends = `between ${signed(last.low)} and ${signed(last.high)}`;
  const says =
    `${name} against ${about.control}: the difference at ${clock(last.time)} is ${signed(last.difference)}, ${ends}; ` +
    `followed from ${clock(path[0].time)} over ${count(path.length, "point")}.`;
  return h(
    "figure",
    { class: "wide" },
    h("figcaption", {}, `${name} against ${about.control}, over time`),
    h(
      "p",
      { class: "soft small" },
      "The band holds at every moment at once, so looking often does no harm. Once it leaves the line of zero, the difference is told from chance.",
    ),
    sequence(says, path, { clock }).node,
    h("p", { class: "sr" }, says),
  );
}

function rail(one) {
  const lift = Number.isFinite(one.lift)
    ? `${signed(100 * one.lift, 1)}% (${signed(100 * one.lift_low, 1)} to ${signed(100 * one.lift_high, 1)}%)`
    : "not known yet";
  return h(
    "li",
    {},
    h("span", { class: `tag ${one.state === "harmed" ? "alarm" : one.state === "fine" ? "" : "off"}` }, one.state),
    " ",
    h("b", {}, `${one.metric} of ${one.arm}`),
    h("span", { class: "soft" }, ` ${lift} against the control; ${percent(one.tolerate)} of loss is tolerated`),
  );
}

function shadow(one) {
  const agrees = `agrees with what was shown to ${percent(one.rbo)}, the same first item in ${percent(one.first)}`;
  const times = `${figure(one.latency_median)} ms beside ${figure(one.shown_latency_median)} ms`;
  return h(
    "li",
    {},
    h("b", {}, one.arm),
    h("span", { class: "soft" }, ` ${count(one.lists, "list")}; ${agrees}; ${times}`),
  );
}
