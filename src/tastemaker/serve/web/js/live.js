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
  const traffic = h("section", { "aria-label": "Traffic" }, h("p", { class: "soft" }, "Looking …"));
  const trials = h("section", { "aria-labelledby": "trials" });
  const when = h("p", { class: "soft small" });
  const pause = button("Pause", () => {
    paused = !paused;
    pause.lastChild.textContent = paused ? "Go on" : "Pause";
    if (!paused) look();
  }, { kind: "soft-button" });
  fill(root, h("div", { class: "headrow" }, h("div", {}, h("h1", { tabindex: "-1" }, "Live"), when), pause), traffic, trials);

  async function look() {
    clearTimeout(timer);
    if (paused || signal.aborted) return;
    if (document.visibilityState === "visible") {
      try {
        const found = await ask("/traffic", { signal, admin: true });
        draw(traffic, found);
        when.textContent = `As of ${clock(Date.now() / 1000)}, asked for anew every ${EVERY / 1000} seconds.`;
      } catch (problem) {
        if (dropped(problem)) return;
        pause.hidden = true;
        fill(traffic, problem.absent ? notice("No traffic to show", "This server does not tell of its traffic.") : trouble(problem, () => { pause.hidden = false; look(); }));
        return; // not again by itself: a server that refuses is not asked every few seconds
      }
    }
    timer = setTimeout(look, EVERY);
  }

  async function experiments() {
    try {
      const found = await ask("/experiments", { signal, admin: true });
      fill(trials, h("h2", { id: "trials" }, "Experiments"), found.experiments.length
        ? h("ul", { class: "trials" }, found.experiments.map(trial))
        : notice("No experiment is set up", "An experiment gives users one of several systems and tells which one they like better."));
    } catch (problem) {
      if (dropped(problem)) return;
      fill(trials, h("h2", { id: "trials" }, "Experiments"), problem.absent ? h("p", { class: "soft" }, "This server runs no experiments.")
        : problem.status === 401 || problem.status === 403 ? h("p", { class: "soft" }, problem.message) : trouble(problem, experiments));
    }
  }

  signal.addEventListener("abort", () => clearTimeout(timer));
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") look(); }, { signal });
  await look();
  if (!signal.aborted) await experiments();
  return {};
}

function trial(one) {
  const arms = Object.entries(one.arms ?? {}).map(([name, arm]) => (arm.serve === name ? name : `${name} (${arm.serve})`));
  return h("li", { class: "trial" },
    h("h3", {}, h("a", { href: link("experiments", {}, one.name) }, one.name), " ", h("span", { class: `tag ${one.state === "running" ? "" : "off"}` }, one.state)),
    h("p", { class: "soft small" }, [KINDS[one.kind] ?? one.kind, arms.join(" against "), one.primary && `judged by ${metricName(one.primary)}`].filter(Boolean).join(" · ")));
}

function draw(place, found) {
  const { minutes = [], systems = {}, events = {}, recent = [] } = found;
  const last = minutes.at(-1);
  const total = minutes.reduce((sum, one) => sum + one.requests, 0);
  const faults = minutes.reduce((sum, one) => sum + one.errors, 0);
  const seriesOf = (name, colour, area = false) => ({ name, colour, area, points: minutes.map((one) => [one.time, one[name]]) });
  const open = place.querySelector("details")?.open;
  const requests = over(`Requests a minute, the last ${count(minutes.length, "minute")}`, [seriesOf("requests", 0, true), seriesOf("errors", 1)], { clock: minute });
  const times = over("Milliseconds an answer takes: the median, and the slowest of a hundred", [seriesOf("p50_ms", 0), seriesOf("p99_ms", 3)], { clock: minute });
  fill(place,
    h("ul", { class: "figures" },
      big(count(total, "request"), `in ${count(minutes.length, "minute")}`),
      big(last ? figure(last.requests) : "–", "in the last minute"),
      big(last ? `${figure(last.p50_ms)} ms` : "–", last ? `median; 99% under ${figure(last.p99_ms)} ms` : "median"),
      big(count(faults, "error"), faults ? `${figure((100 * faults) / Math.max(total, 1))}% of requests` : "all went well", faults > 0)),
    minutes.length ? h("div", { class: "pair" },
      h("figure", {}, h("figcaption", {}, "Requests a minute", legend([["requests", 0], ["errors", 1]])), requests.node),
      h("figure", {}, h("figcaption", {}, "Time of an answer, ms", legend([["median", 0], ["99 of 100 under", 3]])), times.node))
      : notice("Nothing has been asked yet", "As soon as somebody asks for a list, it shows here."),
    h("div", { class: "pair" }, systemsTable(systems), eventsPart(events)),
    recentPart(recent, open));
}

const minute = (time) => new Date(time * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
const big = (value, says, bad = false) => h("li", {}, h("b", { class: bad ? "bad" : null }, value), h("span", { class: "soft small" }, says));

function systemsTable(systems) {
  const rows = Object.entries(systems).sort((a, b) => b[1].requests - a[1].requests);
  return h("div", {}, h("h2", {}, "Systems"), rows.length
    ? h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Systems" }, h("table", {},
      h("thead", {}, h("tr", {}, ["System", "Requests", "At once", "Fit", "Opened"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(([name, one]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, figure(one.requests)), h("td", {}, figure(one.mean_batch)),
        h("td", {}, h("code", {}, short(String(one.snapshot ?? "–"), 14))), h("td", {}, one.opened ? ago(one.opened) : "–"))))))
    : h("p", { class: "soft" }, "None has been asked."));
}

function eventsPart(events) {
  const rows = Object.entries(events).sort((a, b) => b[1] - a[1]);
  return h("div", {}, h("h2", {}, "What people did"), rows.length
    ? h("ul", { class: "bars" }, rows.map(([kind, n]) => h("li", {}, h("span", { class: "bars-name" }, kind),
      h("span", { class: "bar", "aria-hidden": "true" }, h("i", { style: { "inline-size": `${(100 * n) / rows[0][1]}%` } })), h("span", { class: "soft" }, figure(n)))))
    : h("p", { class: "soft" }, "No feedback yet."));
}

function recentPart(recent, open) {
  if (!recent.length) return null;
  return h("details", { class: "plain recent", open: open ?? true }, h("summary", {}, "The latest"),
    h("ul", {}, recent.slice(0, RECENT).map((one) => h("li", {}, h("span", { class: "soft small" }, clock(one.time)), h("b", {}, one.what),
      h("span", {}, one.user === null || one.user === undefined ? h("span", { class: "soft" }, "somebody") : h("a", { href: link("user", { system: one.system }, one.user) }, String(one.user)),
        one.system ? h("span", { class: "soft" }, ` · ${one.system}`) : null),
      h("span", { class: "soft small" }, short((one.items ?? []).map(String).join(", "), 90))))));
}
