// What goes on at this moment: traffic, systems, events, experiments. Asked for anew every few seconds while it is seen.

import { ask, dropped } from "./api.js";
import { button, fill, h, notice, trouble } from "./dom.js";
import { ago, clock, count, figure, short } from "./format.js";
import { legend, over } from "./plots.js";
import { KINDS, metricName } from "./experiment.js";
import { link } from "./router.js";

const EVERY = 4000;
const RECENT = 12;

export const title = () => "Live";

export async function open(root, route, signal) {
  let paused = false;
  let timer = null;
  const shown = board();
  const traffic = h("section", { "aria-label": "Traffic" }, h("p", { class: "soft" }, "Looking …"));
  const trials = h("section", { "aria-labelledby": "trials" });
  const when = h("p", { class: "soft small" });
  const pause = button(
    "Pause",
    () => {
      paused = !paused;
      pause.lastChild.textContent = paused ? "Go on" : "Pause";
      if (!paused) look();
    },
    { kind: "soft-button" },
  );
  fill(
    root,
    h("div", { class: "headrow close" }, h("div", {}, h("h1", { tabindex: "-1" }, "Live"), when), pause),
    traffic,
    trials,
  );

  async function look() {
    clearTimeout(timer);
    if (paused || signal.aborted) return;
    if (document.visibilityState === "visible") {
      try {
        const found = await ask("/traffic", { signal, admin: true });
        if (shown.node.parentNode !== traffic) fill(traffic, shown.node);
        shown.update(found);
        when.textContent = `As of ${clock(Date.now() / 1000)}, renewed every ${EVERY / 1000} s.`;
      } catch (problem) {
        if (dropped(problem)) return;
        pause.hidden = true;
        fill(
          traffic,
          problem.absent
            ? notice("No traffic to show", "This server does not tell of its traffic.")
            : trouble(problem, () => {
                pause.hidden = false;
                look();
              }),
        );
        return; // not again by itself: a server that refuses is not asked every few seconds
      }
    }
    timer = setTimeout(look, EVERY);
  }

  async function experiments() {
    try {
      const found = await ask("/experiments", { signal, admin: true });
      fill(
        trials,
        h("h2", { id: "trials" }, "Experiments"),
        found.experiments.length
          ? h("ul", { class: "trials" }, found.experiments.map(trial))
          : notice(
              "No experiment is set up",
              "An experiment gives users one of several systems and tells which one they like better.",
            ),
      );
    } catch (problem) {
      if (dropped(problem)) return;
      fill(
        trials,
        h("h2", { id: "trials" }, "Experiments"),
        problem.absent
          ? h("p", { class: "soft" }, "This server runs no experiments.")
          : problem.status === 401 || problem.status === 403
            ? h("p", { class: "soft" }, problem.message)
            : trouble(problem, experiments),
      );
    }
  }

  signal.addEventListener("abort", () => clearTimeout(timer));
  document.addEventListener(
    "visibilitychange",
    () => {
      if (document.visibilityState === "visible") look();
    },
    { signal },
  );
  await look();
  if (!signal.aborted) await experiments();
  return {};
}

function trial(one) {
  const arms = Object.entries(one.arms ?? {}).map(([name, arm]) =>
    arm.serve === name ? name : `${name} (${arm.serve})`,
  );
  return h(
    "li",
    { class: "trial" },
    h(
      "h3",
      {},
      h("a", { href: link("experiments", {}, one.name) }, one.name),
      " ",
      h("span", { class: `tag ${one.state === "running" ? "" : "off"}` }, one.state),
    ),
    h(
      "p",
      { class: "soft small" },
      [KINDS[one.kind] ?? one.kind, arms.join(" against "), one.primary && `judged by ${metricName(one.primary)}`]
        .filter(Boolean)
        .join(" · "),
    ),
  );
}

/** What is shown of the traffic; it is made once and then kept up, so that nothing jumps or loses the focus. */
function board() {
  let minutes = [];
  const series = (name, colour, area = false) => ({
    colour,
    area,
    points: minutes.map((one) => [one.time, one[name]]),
  });
  const requests = over(
    "Requests and errors a minute, over the last hour",
    () => [series("requests", 0, true), series("errors", 1)],
    { clock: minute },
  );
  const times = over(
    "Milliseconds an answer takes, over the last hour: the median, and what 99 of 100 stay under",
    () => [series("p50_ms", 0), series("p99_ms", 3)],
    { clock: minute },
  );
  const figures = h("ul", { class: "figures" });
  const plots = h(
    "div",
    { class: "pair" },
    h(
      "figure",
      {},
      h(
        "figcaption",
        {},
        "Requests a minute",
        legend([
          ["requests", 0],
          ["errors", 1],
        ]),
      ),
      requests.node,
    ),
    h(
      "figure",
      {},
      h(
        "figcaption",
        {},
        "Time of an answer, ms",
        legend([
          ["median", 0],
          ["99 of 100 under", 3],
        ]),
      ),
      times.node,
    ),
  );
  const none = notice("Nothing has been asked yet", "As soon as somebody asks for a list, it shows here.");
  const systems = h("div", {});
  const events = h("div", {});
  const latest = h("ul", {});
  const recent = h("details", { class: "plain recent", open: true }, h("summary", {}, "The latest"), latest);
  const node = h("div", {}, figures, plots, none, h("div", { class: "pair" }, systems, events), recent);

  function update(found) {
    minutes = found.minutes ?? [];
    const last = minutes.at(-1);
    const total = minutes.reduce((sum, one) => sum + one.requests, 0);
    const faults = minutes.reduce((sum, one) => sum + one.errors, 0);
    fill(
      figures,
      big(count(total, "request"), `in ${count(minutes.length, "minute")}`),
      big(last ? figure(last.requests) : "–", "in the last minute"),
      big(last ? `${figure(last.p50_ms)} ms` : "–", last ? `median; 99% under ${figure(last.p99_ms)} ms` : "median"),
      big(
        count(faults, "error"),
        faults ? `${figure((100 * faults) / Math.max(total, 1))}% of requests` : "all went well",
        faults > 0,
      ),
    );
    none.hidden = minutes.length > 0;
    plots.hidden = !minutes.length;
    if (minutes.length) {
      requests.again();
      times.again();
    }
    quietly(systems, () => systemsTable(found.systems ?? {}));
    quietly(events, () => eventsPart(found.events ?? {}));
    quietly(latest, () => (found.recent ?? []).slice(0, RECENT).map(happened));
    recent.hidden = !found.recent?.length;
  }
  return { node, update };
}

/** Fill a place anew, unless somebody is in there with the keyboard. */
function quietly(place, content) {
  if (!place.contains(document.activeElement)) fill(place, content());
}

const minute = (time) => new Date(time * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
const big = (value, says, bad = false) =>
  h("li", {}, h("b", { class: bad ? "bad" : null }, value), h("span", { class: "soft small" }, says));

function systemsTable(systems) {
  const rows = Object.entries(systems).sort((a, b) => b[1].requests - a[1].requests);
  return [
    h("h2", {}, "Systems"),
    rows.length
      ? h(
          "div",
          { class: "scroll", role: "region", tabindex: "0", "aria-label": "Systems" },
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                ["System", "Requests", "At once", "Fit", "Opened"].map((name) => h("th", { scope: "col" }, name)),
              ),
            ),
            h(
              "tbody",
              {},
              rows.map(([name, one]) =>
                h(
                  "tr",
                  {},
                  h("th", { scope: "row" }, name),
                  h("td", {}, figure(one.requests)),
                  h("td", {}, figure(one.mean_batch)),
                  h("td", {}, h("code", {}, short(String(one.snapshot ?? "–"), 14))),
                  h("td", {}, one.opened ? ago(one.opened) : "–"),
                ),
              ),
            ),
          ),
        )
      : h("p", { class: "soft" }, "None has been asked."),
  ];
}

function eventsPart(events) {
  const rows = Object.entries(events).sort((a, b) => b[1] - a[1]);
  return [
    h("h2", {}, "What people did"),
    rows.length
      ? h(
          "ul",
          { class: "bars" },
          rows.map(([kind, n]) =>
            h(
              "li",
              {},
              h("span", { class: "bars-name" }, kind),
              h(
                "span",
                { class: "bar", "aria-hidden": "true" },
                h("i", { style: { "inline-size": `${(100 * n) / rows[0][1]}%` } }),
              ),
              h("span", { class: "soft" }, figure(n)),
            ),
          ),
        )
      : h("p", { class: "soft" }, "No feedback yet."),
  ];
}

function happened(one) {
  const known = one.user !== null && one.user !== undefined;
  return h(
    "li",
    {},
    h("span", { class: "soft small" }, clock(one.time)),
    h("b", {}, one.what),
    h(
      "span",
      {},
      known
        ? h("a", { href: link("user", { system: one.system }, one.user) }, String(one.user))
        : h("span", { class: "soft" }, "somebody"),
      one.system ? h("span", { class: "soft" }, ` · ${one.system}`) : null,
    ),
    h("span", { class: "soft small" }, short((one.items ?? []).map(String).join(", "), 90)),
  );
}
