// Which view an address shows; titles, the menu, where the focus goes.

import { dropped } from "./api.js";
import { fill, h, notice, trouble } from "./dom.js";
import { go, link, parse } from "./router.js";
import { conversing, listing, person, personParams } from "./store.js";
import * as chat from "./chat.js";
import * as compare from "./compare.js";
import * as experiment from "./experiment.js";
import * as item from "./item.js";
import * as leaderboard from "./leaderboard.js";
import * as live from "./live.js";
import * as pick from "./pick.js";
import * as pipelines from "./pipelines.js";
import * as tryout from "./try.js";
import * as user from "./user.js";

// a view: title(route), open(root, route, signal) -> {update(route)?}; `menu` is the entry it belongs to
const VIEWS = {
  try: { ...tryout, menu: "try" },
  pick: { ...pick, menu: "try" },
  item: { ...item, menu: "try" },
  user: { ...user, menu: "try" },
  chat: { ...chat, menu: "chat" },
  compare: { ...compare, menu: "compare" },
  leaderboard: { ...leaderboard, menu: "leaderboard" },
  pipelines: { ...pipelines, menu: "pipelines" },
  live: { ...live, menu: "live" },
  experiments: { ...experiment, menu: "live" },
};

const root = document.getElementById("main");
const places = new Map(); // address -> how far down it was read
let now = null; // {view, id, opened, left, hash}
let clicked = false; // a link was followed, and not "back"

addEventListener(
  "click",
  () => {
    clicked = true;
    setTimeout(() => {
      clicked = false;
    }, 300);
  },
  true,
);
addEventListener("hashchange", show);
addEventListener("person", () => follow(now?.route));
history.scrollRestoration = "manual";
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part behind the "#" names a view, and no place on it
  (root.querySelector("h1") ?? root).focus();
});

async function show() {
  const route = parse();
  const view = VIEWS[route.view];
  if (now !== null) places.set(now.hash, scrollY);
  const back = now !== null && !clicked;
  if (now !== null && now.view === route.view && now.id === route.id && now.opened?.update) {
    now.hash = location.hash;
    now.route = route;
    named(view, route);
    follow(route);
    const { opened, left } = now;
    try {
      await opened.update(route);
    } catch (problem) {
      failed(problem, left.signal);
    }
    return;
  }
  now?.left.abort();
  document.querySelectorAll("dialog").forEach((one) => one.close());
  document.getElementById("toast").replaceChildren();
  const left = new AbortController();
  const first = now === null;
  const mine = { view: route.view, id: route.id, route, left, hash: location.hash, opened: null };
  now = mine;
  root.className = `view-${route.view}`;
  if (!view) {
    fill(root, notice("There is no such page", null, h("p", {}, h("a", { href: link("try") }, "To the lists"))));
    return;
  }
  named(view, route);
  follow(route);
  root.setAttribute("aria-busy", "true");
  try {
    mine.opened = await view.open(root, route, left.signal);
  } catch (problem) {
    failed(problem, left.signal);
  } finally {
    if (now === mine) root.removeAttribute("aria-busy");
  }
  if (now !== mine) return;
  scrollTo(0, back ? (places.get(location.hash) ?? 0) : 0);
  if (!first) root.querySelector("h1")?.focus({ preventScroll: true });
}

/** A view that cannot be shown says why. */
function failed(problem, signal) {
  if (signal.aborted || dropped(problem)) return;
  now.opened = null; // what is asked for next is made anew
  fill(
    root,
    h("h1", { class: "sr", tabindex: "-1" }, problem.title ?? "That did not work"),
    trouble(problem, problem.absent ? null : show),
    problem.absent && h("p", { class: "center" }, h("a", { href: link("try") }, "To the lists")),
  );
  if (!problem.title) console.error(problem); // a fault of the page itself
}

function named(view, route) {
  const title = view?.title?.(route);
  document.title = title ? `${title} · Tastemaker` : "Tastemaker";
}

/** The menu: where one is, and links that take the person along. */
function follow(route) {
  const who = personParams(person());
  const system = route?.params.get("system") ?? null;
  for (const node of document.querySelectorAll("nav a[data-view]")) {
    const { view } = node.dataset;
    const here = route && VIEWS[route.view]?.menu === view;
    if (here) node.setAttribute("aria-current", route.view === view ? "page" : "true");
    else node.removeAttribute("aria-current");
    node.href =
      view === "try"
        ? link("try", { system, ...who })
        : view === "compare" || view === "chat"
          ? link(view, who)
          : link(view);
  }
}

/** The menu has an entry for conversations where a system holds some; where all do, the page begins with it. */
async function invite() {
  const able = await conversing();
  document.querySelector("nav a[data-view=chat]").hidden = !able.length;
  if (able.length && !location.hash && !(await listing()).systems.length) go(link("chat"), { replace: true });
}

invite().catch(() => {}); // a server that cannot be asked is told of by the view
show();
