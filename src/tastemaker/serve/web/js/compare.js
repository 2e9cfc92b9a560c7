// Two systems side by side for one person: what both show, what moved, how much they agree.

import { ask, dropped } from "./api.js";
import { cover, dress } from "./cover.js";
import { field, fill, h, menu, notice, s, trouble } from "./dom.js";
import { percent } from "./format.js";
import { go, link } from "./router.js";
import { asker, itemsOf, listing, personOf, personParams, setPerson, titleOf, visit } from "./store.js";
import { made, nameOf, someUser, userField } from "./who.js";

const SIZES = ["5", "10", "20", "50"];
const GAP = 100; // width of the middle in units of its drawing

export const title = () => "Compare systems";

export async function open(root, route, signal) {
  const { systems: all } = await listing();
  if (all.length < 2) {
    fill(
      root,
      h("h1", { tabindex: "-1" }, "Compare systems"),
      notice(
        "It takes two",
        all.length
          ? `Only ${all[0].name} is served. With a second system beside it, their lists can be compared here.`
          : "Nothing is served yet.",
      ),
    );
    return {};
  }
  const names = all.map((one) => [one.name, one.name]);
  const people = h("div", { class: "compare-who" });
  const controls = h("div", { class: "compare-controls" });
  const verdict = h("p", { class: "verdict", role: "status" });
  const place = h("div", { class: "compare" });
  const head = h("h1", { tabindex: "-1" }, "Compare systems");
  fill(root, head, h("div", { class: "compare-ask" }, people, controls), verdict, place);
  let now = null;
  let waiting = new AbortController();
  signal.addEventListener("abort", () => waiting.abort());

  const address = (changes) => link("compare", { ...Object.fromEntries(now.params), ...changes });
  const addressOf = (person) => address({ user: null, with: null, without: null, ...personParams(person) });
  const user = userField(
    () => all[0],
    (id) => go(addressOf({ user: id })),
  );
  const chosen = h("div", {});
  people.append(user.node, chosen);

  async function show(next) {
    const { params } = next;
    const person = personOf(params);
    if (person === null) {
      const drawn = await someUser(all[0]);
      if (signal.aborted) return;
      if (drawn === null) fill(place, notice("Nobody to compare for", "These systems were fitted without users."));
      else go(link("compare", { ...Object.fromEntries(params), user: drawn }), { replace: true });
      return;
    }
    setPerson(person);
    const a = all.find((one) => one.name === params.get("a")) ?? all[0];
    const b = all.find((one) => one.name === params.get("b")) ?? all.find((one) => one !== a);
    const k = SIZES.includes(params.get("k")) ? params.get("k") : "10";
    now = { params, person, a, b, k: Number(k) };
    if (document.activeElement !== user.input || person.user) user.input.value = person.user ?? "";
    drawControls(a, b, k);
    if (person.user === undefined)
      made(person, a, addressOf, signal).then(
        (node) => fill(chosen, node),
        () => {},
      );
    else fill(chosen);
    nameOf(person, a, signal).then(
      (name) => {
        head.textContent = `Compared for ${name}`;
      },
      () => {},
    );
    await load();
  }

  function drawControls(a, b, k) {
    if (!controls.firstChild) {
      fill(
        controls,
        field(
          "Left",
          menu(names, a.name, (name) => go(address({ a: name }))),
        ),
        field(
          "Right",
          menu(names, b.name, (name) => go(address({ b: name }))),
        ),
        field(
          "Length",
          menu(
            SIZES.map((one) => [one, one]),
            k,
            (size) => go(address({ k: size })),
          ),
        ),
      );
      return;
    }
    [a.name, b.name, k].forEach((value, at) => {
      controls.querySelectorAll("select")[at].value = value;
    });
  }

  async function load() {
    const mine = now;
    waiting.abort();
    waiting = new AbortController();
    const within = waiting.signal;
    place.setAttribute("aria-busy", "true");
    const body = { ...asker(mine.person), k: mine.k, session: visit };
    if (mine.person.hidden?.length) body.exclude = mine.person.hidden;
    try {
      const [left, right] = await Promise.all(
        [mine.a, mine.b].map((one) => ask("/recommend", { body: { ...body, system: one.name }, signal: within })),
      );
      if (mine !== now) return;
      draw(mine, left, right);
      itemsOf(
        [...left.items, ...right.items].map((row) => row.item),
        mine.a.name,
        within,
      ).then(
        (found) => {
          for (const li of place.querySelectorAll("li[data-item]"))
            dress(li.querySelector(".cover"), found.get(li.dataset.item)?.columns ?? {});
        },
        () => {},
      );
    } catch (problem) {
      if (!dropped(problem) && mine === now) {
        verdict.textContent = "";
        fill(place, trouble(problem, load));
      }
    } finally {
      if (mine === now) place.removeAttribute("aria-busy");
    }
  }

  function draw({ a, b, person }, first, second) {
    const [left, right] = [first.items, second.items];
    const ranks = [left, right].map((rows) => new Map(rows.map((row) => [String(row.item), row.rank])));
    const shared = left.filter((row) => ranks[1].has(String(row.item)));
    const of = Math.max(left.length, right.length, 1);
    const same = shared.filter((row) => ranks[1].get(String(row.item)) === row.rank).length;
    verdict.replaceChildren(
      h("b", {}, `${shared.length} of ${of}`),
      ` are in both lists (${percent(shared.length / of)}), ${same} at the same place. `,
      h("span", { class: "soft" }, `Agreement that counts the first places most: ${percent(biased(left, right))}.`),
    );
    const href = (id, system) => link("item", { system: system.name, ...personParams(person) }, id);
    fill(
      place,
      list(a, first, ranks[1], b, href),
      shared.length ? bridge(left, right, ranks[1]) : h("div", { class: "bridge" }),
      list(b, second, ranks[0], a, href),
    );
  }

  await show(route);
  return { update: show };
}

function list(system, answer, others, other, href) {
  const rows = answer.items;
  const says = answer.experiment
    ? `answered by ${answer.system}: the experiment ${answer.experiment} gives this person the arm ${answer.arm}`
    : system.title;
  return h(
    "section",
    { class: "side" },
    h("h2", { title: says }, system.name, h("small", { class: answer.experiment ? "trial-note" : "soft" }, says)),
    rows.length
      ? h(
          "ol",
          {},
          rows.map((row) => {
            const there = others.get(String(row.item));
            const mark =
              there === undefined
                ? h("span", { class: "only" }, "only here")
                : there === row.rank
                  ? h("span", { class: "soft" }, "same place")
                  : h(
                      "span",
                      { class: there > row.rank ? "up" : "down", "aria-label": `at place ${there} of ${other.name}` },
                      `${there > row.rank ? "▲" : "▼"} ${Math.abs(there - row.rank)}`,
                    );
            return h(
              "li",
              { class: there === undefined ? "lone" : "both", "data-item": row.item },
              h("span", { class: "rank" }, row.rank),
              cover(String(row.item)),
              h("span", { class: "what" }, h("a", { href: href(row.item, system) }, titleOf(row)), mark),
            );
          }),
        )
      : h("p", { class: "soft" }, "An empty list."),
  );
}

/** Lines from the places of one list to those of the other. */
function bridge(left, right, ranks) {
  const n = Math.max(left.length, right.length, 1);
  const at = (rank) => ((rank - 0.5) / n) * 100;
  const lines = left
    .filter((row) => ranks.has(String(row.item)))
    .map((row) => {
      const there = ranks.get(String(row.item));
      return s("path", {
        d: `M0 ${at(row.rank)} C${GAP * 0.45} ${at(row.rank)} ${GAP * 0.55} ${at(there)} ${GAP} ${at(there)}`,
        "vector-effect": "non-scaling-stroke",
      });
    });
  return h(
    "div",
    { class: "bridge", "aria-hidden": "true", style: { "--rows": n } },
    s("svg", { viewBox: `0 0 ${GAP} 100`, preserveAspectRatio: "none" }, lines),
  );
}

/**
 * Rank-biased overlap, scaled so that two equal lists of this length give 1.
 * Ref: Webber, Moffat, Zobel, TOIS 2010, equation 5, cut at the length of the lists.
 */
function biased(left, right, p = 0.9) {
  const [a, b] = [new Set(), new Set()];
  let [common, sum, whole] = [0, 0, 0];
  for (let d = 0; d < Math.max(left.length, right.length); d += 1) {
    const [x, y] = [left[d] && String(left[d].item), right[d] && String(right[d].item)];
    if (x !== undefined && x === y) common += 1;
    else common += (x !== undefined && b.has(x) ? 1 : 0) + (y !== undefined && a.has(y) ? 1 : 0);
    a.add(x);
    b.add(y);
    sum += (p ** d * common) / (d + 1);
    whole += p ** d;
  }
  return whole ? sum / whole : 0;
}
