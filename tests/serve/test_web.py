"""The web app in a real browser: what people do on it, by pointer and by keyboard, on a phone and in the dark."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.conftest import absent

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&'
POSTERS = "https://pictures.example"
POSTER = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="30"><rect width="20" height="30"/></svg>'
VIEWS = {
    "pick": "#/pick",
    "try": "#/try?user={user}&system=ials",
    "compare": "#/compare?user={user}",
    "item": "#/item/{item}?user={user}&system=ials",
    "user": "#/user/{user}",
    "leaderboard": "#/leaderboard",
    "pipelines": "#/pipelines",
    "editor": "#/pipelines/%2B",
    "live": "#/live",
    "experiment": "#/experiments/knn-or-not",
}
FINALISTS = [
    {"system": "ease", "value": 0.24, "low": 0.23, "high": 0.25, "fit_seconds": 2.0, "ms_per_request": 0.6},
    {"system": "ials", "value": 0.23, "low": 0.22, "high": 0.24, "fit_seconds": 6.0, "ms_per_request": 0.3},
    {"system": "slow", "value": 0.10, "low": 0.09, "high": 0.11, "fit_seconds": 9.0, "ms_per_request": 2.0},
]


class Served:
    """A server in a thread: its address, and answers of its interface to compare the page with."""

    def __init__(self, url: str, users: list[str]) -> None:
        self.url, self.users = url, users
        self.http = httpx.Client(base_url=url)

    def list(self, **body: Any) -> list[str]:
        answer = self.http.post("/recommend", json={"k": 12, **body})
        answer.raise_for_status()
        return [row["item"] for row in answer.json()["items"]]


@pytest.fixture(scope="module")
def bundles() -> dict[str, Any]:
    from tastemaker.data import synthetic
    from tastemaker.train import fit

    data = synthetic(150, seed=2)
    found = {name: fit(name, data) for name in ("ease", "ials", "itemknn")}
    for bundle in found.values():  # a title that would do harm if it were taken for markup
        titles = bundle.catalogue["title"].to_list()
        titles[7] = EVIL
        posters = [f"{POSTERS}/{n}.svg" if n % 2 else None for n in range(len(titles))]
        bundle.catalogue = bundle.catalogue.with_columns(pl.Series("title", titles), pl.Series("poster_url", posters))
    return found


def started(bundles: dict[str, Any], folder: Path, **given: Any) -> Iterator[Served]:
    import uvicorn

    from tastemaker.serve.app import create_app
    from tastemaker.serve.entry import Entry
    from tastemaker.serve.runtime import Runtime
    from tastemaker.serve.settings import Settings

    runtime = Runtime(Settings(log_url=f"sqlite:///{folder / 'log.db'}", mcp=False, **given))
    for name, bundle in bundles.items():
        runtime.put(Entry(name, bundle, snapshot="first"))
    server = uvicorn.Server(uvicorn.Config(create_app(runtime), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    served = Served(url, next(iter(bundles.values())).users.series.to_list())
    yield served
    served.http.close()
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def server(bundles: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "choice.json").write_text(
        json.dumps({"finalists": FINALISTS, "metric": "ndcg@10", "verdict": "On made-up films."})
    )
    (folder / "experiments.json").write_text(
        json.dumps(
            [
                {
                    "name": "knn-or-not",
                    "kind": "ab",
                    "arms": {"now": {"serve": "ease"}, "knn": {"serve": "itemknn"}},
                    "control": "now",
                }
            ]
        )
    )
    yield from started(bundles, folder, reports_dir=folder, experiments_file=folder / "experiments.json")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("TASTEMAKER_CHROMIUM", "/usr/bin/chromium")
    if not Path(path).exists():
        absent(f"no browser at {path}: set TASTEMAKER_CHROMIUM to a Chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Tab:
    """A page, and what it complained of."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.context.set_default_timeout(20_000)
        self.pictures = True  # whether posters can be had
        self.context.route(f"{POSTERS}/**", self._picture)
        self.page, self.url = self.context.new_page(), url
        self.faults: list[str] = []
        self.expected = ""
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _picture(self, route: Any) -> None:
        if self.pictures:
            route.fulfill(body=POSTER, content_type="image/svg+xml")
        else:
            route.abort()

    def go(self, address: str, ready: str = "h1") -> Any:
        self.page.goto("about:blank")  # else it would stay the same page, with another address
        self.page.goto(f"{self.url}/{address}")
        self.page.wait_for_selector(ready)
        return self.page

    def items(self) -> list[str]:
        cards = ".cards:not([aria-hidden]) > .card:not(.going)"
        return self.page.eval_on_selector_all(cards, "all => all.map(one => one.dataset.item)")

    def act(self, kind: str, item: str) -> Any:
        """The button of a card."""
        return self.page.locator(f".card:not(.going)[data-item={item}] [data-act={kind}]")

    def until(self, test: str) -> None:
        self.page.wait_for_function(f"() => ({test})")  # the page's policy forbids to evaluate text

    def until_list(self, wanted: list[str]) -> None:
        get = "[...document.querySelectorAll('.cards:not([aria-hidden]) > .card:not(.going)')].map(c => c.dataset.item)"
        self.until(f"JSON.stringify({get}) === {json.dumps(json.dumps(wanted, separators=(',', ':')))}")

    def said(self) -> str:
        self.until("document.getElementById('said').textContent !== ''")
        return str(self.page.text_content("#said"))


@pytest.fixture
def tab(browser: Any, server: Served) -> Iterator[Tab]:
    tab = Tab(browser, server.url, reduced_motion="reduce")
    yield tab
    tab.context.close()
    assert [fault for fault in tab.faults if not tab.expected or tab.expected not in fault] == []


# -- the files


def test_files(server: Served) -> None:
    """Everything the page names is there, of the right type, kept for good; the page itself is asked for each time."""
    page = server.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    again = server.http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert len(named) > 20
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for address in named:
        found = server.http.get(address)
        assert found.status_code == 200, address
        assert found.headers["content-type"].startswith(types[address.rpartition(".")[2]])
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["etag"] != page.headers["etag"]
    old = re.sub(r"/static/\w+/", "/static/000000000000/", named[0])
    assert server.http.get(old).headers["cache-control"] == "no-cache"
    version = named[0].split("/")[2]
    for wrong in (f"/static/{version}/nothing.js", f"/static/{version}/../__init__.py", "/static/js/main.js"):
        assert server.http.get(wrong).status_code == 404
    assert server.http.get(f"/static/{version}/%2e%2e/__init__.py").status_code == 404
    plain = server.http.get(named[0], headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.content == server.http.get(named[0]).content
    assert server.http.head("/").status_code == 200 and server.http.get("/favicon.ico").status_code == 200


def test_no_markup_is_made_of_text() -> None:
    """Nothing in the modules can turn text into markup or code, and each of them can be read at one go."""
    folder = Path(__file__).parents[2] / "src" / "tastemaker" / "serve" / "web"
    modules = list(folder.glob("js/*.js"))
    assert modules
    for module in modules:
        text = module.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 400, module.name
        risky = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert not re.search(risky + r"|https?://(?!www\.w3\.org)", text), module.name


def test_looking_around(server: Served, bundles: dict[str, Any]) -> None:
    catalogue = bundles["ease"].catalogue
    columns = {one["name"]: one for one in server.http.get("/systems/ease/columns").json()["columns"]}
    assert "item" not in columns and "title" not in columns
    year = columns["year"]
    assert (year["kind"], year["low"], year["high"]) == ("number", catalogue["year"].min(), catalogue["year"].max())
    counts = {one["value"]: one["count"] for one in columns["genres"]["values"]}
    assert columns["genres"]["kind"] == "categories" and columns["genres"]["distinct"] == len(counts)
    assert counts["drama"] == sum("drama" in genres for genres in catalogue["genres"].to_list())
    assert columns["description"]["kind"] == "text"
    assert columns["series"]["missing"] == catalogue["series"].null_count()
    found = server.http.post("/items/lookup", json={"items": ["f000003", "nobody", "f000001"]}).json()["items"]
    assert [one["item"] for one in found] == ["f000003", "nobody", "f000001"]
    assert found[0]["columns"]["year"] == catalogue["year"][3] and found[1]["columns"] == {}
    drawn = [server.http.get("/systems/ease/sample?users=3&items=20&seed=5").json() for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0]["users"])) == 3 and len({one["item"] for one in drawn[0]["items"]}) == 20
    other = server.http.get("/systems/ease/sample?users=3&items=20&seed=6").json()
    assert other != drawn[0]


# -- lists


@pytest.mark.services
def test_find_a_user_and_get_the_list(tab: Tab, server: Served) -> None:
    page, user = tab.go("#/pick"), server.users[5]
    page.get_by_role("combobox", name="User").fill(user[-4:])
    page.get_by_role("option", name=user).click()
    tab.until_list(server.list(user=user))
    assert page.text_content("h1") == f"For {user}"
    assert f"user={user}" in page.url
    titles = {item: card for item, card in zip(tab.items(), page.query_selector_all(".card"), strict=False)}
    first = server.http.get(f"/items/{tab.items()[0]}").json()
    tab.until("document.querySelector('.card .facts').textContent !== ''")
    text = titles[first["item"]].inner_text()
    assert first["title"] in text and str(first["columns"]["year"]) in text and first["columns"]["genres"][0] in text
    assert f"{first['columns']['price']:.2f}" in text
    page.select_option("select", "ials")
    tab.until_list(server.list(user=user, system="ials"))
    assert "Because you chose" in page.inner_text(".card .why")
    page.go_back()
    tab.until_list(server.list(user=user))
    page.get_by_role("button", name="Random user").click()
    tab.until(f"!location.hash.includes('{user}')")


@pytest.mark.services
def test_like_changes_the_list_and_undo_brings_it_back(tab: Tab, server: Served) -> None:
    user = server.users[8]
    before = server.list(user=user)
    page = tab.go(f"#/try?user={user}", ".card:not(.ghost)")
    tab.until_list(before)
    tab.act("like", before[2]).click()
    tab.until(f"!document.querySelector('.card:not(.going)[data-item={before[2]}]')")
    after = server.list(user=user)
    assert before[2] not in after and after != before
    tab.until_list(after)
    assert "new in the list" in tab.said() and "Liked" in str(page.text_content("#toast"))
    assert page.locator(".change.fresh").count() == len(set(after) - set(before))
    assert page.evaluate("document.activeElement.closest('.card').dataset.item") == after[2]  # what took its place
    assert page.inner_text(".visit").startswith("Liked")
    page.locator("#toast").get_by_role("button", name="Undo").click()
    tab.until_list(before)
    assert server.http.get(f"/users/{user}").json()["history"][0]["item"] != before[2]


@pytest.mark.services
def test_hide_is_gone_for_good(tab: Tab, server: Served) -> None:
    user = server.users[11]
    before = server.list(user=user)
    page = tab.go(f"#/try?user={user}", ".card:not(.ghost)")
    tab.act("hide", before[0]).click()
    tab.until(f"!document.querySelector('.card:not(.going)[data-item={before[0]}]')")
    page.reload()
    tab.until_list(server.list(user=user))
    assert before[0] not in tab.items()
    page = tab.go(f"#/user/{user}", "h2:has-text('Hidden')")
    page.get_by_role("button", name="Show").click()
    tab.until("!document.querySelector('main').textContent.includes('Hidden')")
    assert server.list(user=user) == before


@pytest.mark.services
def test_be_somebody_new(tab: Tab, server: Served) -> None:
    """A person made of picks lives in the address: it can be sent to somebody, and "back" goes back."""
    page = tab.go("#/pick", ".pick[data-item]")
    picks = page.eval_on_selector_all(".pick[data-item]", "all => all.slice(0, 2).map(one => one.dataset.item)")
    for item in picks:
        page.click(f".pick[data-item={item}]")
    assert page.get_attribute(f".pick[data-item={picks[0]}]", "aria-pressed") == "true"
    page.get_by_role("searchbox", name="Search the catalogue").fill("f00001")
    tab.until(
        "document.querySelectorAll('.pick[data-item^=f00001]').length === document.querySelectorAll('.pick').length"
    )
    third = page.get_attribute(".pick[data-item]:not([aria-pressed=true])", "data-item")
    page.click(f".pick[data-item={third}]")
    page.get_by_role("link", name="Show my list").click()
    history = [*picks, third]
    tab.until_list(server.list(history=history))
    shown = tab.items()
    tab.act("like", shown[1]).click()
    tab.until_list(server.list(history=[*history, shown[1]]))
    hidden = tab.items()[0]
    tab.act("hide", hidden).click()
    tab.until_list(server.list(history=[*history, shown[1]], exclude=[hidden]))
    page.reload()
    tab.until_list(server.list(history=[*history, shown[1]], exclude=[hidden]))
    page.go_back()
    page.go_back()
    tab.until_list(shown)


@pytest.mark.services
def test_more_like_this(tab: Tab, server: Served) -> None:
    user = server.users[14]
    page = tab.go(f"#/try?user={user}&system=ials", ".card:not(.ghost)")
    item = tab.items()[1]
    tab.act("similar", item).click()
    near = server.http.post("/similar", json={"item": item, "k": 12, "system": "ials"}).json()["items"]
    page.wait_for_selector("dialog .tile")
    assert page.locator("dialog .tile").count() == len(near)
    assert near[0]["title"] in page.inner_text("dialog .tile")
    page.locator("dialog .like").first.click()
    tab.until_list(server.list(user=user, system="ials"))
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert page.evaluate("document.activeElement.dataset.act") == "similar"


@pytest.mark.services
def test_filters_are_made_from_the_columns(tab: Tab, server: Served) -> None:
    user = server.users[17]
    page = tab.go(f"#/try?user={user}", ".filters .chip")
    chip = page.locator(".filters .chip").first
    genre = f"array_contains(genres, '{chip.inner_text()}')"
    chip.click()
    tab.until_list(server.list(user=user, where=genre))
    assert chip.get_attribute("aria-pressed") == "true"
    page.get_by_label("Year, at least").fill("2010")
    page.keyboard.press("Tab")
    both = server.list(user=user, where=f"{genre} AND year >= 2010")
    tab.until_list(both)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Year, at most"
    address = page.url
    page.get_by_role("button", name="Clear 2 filters").click()
    tab.until_list(server.list(user=user))
    page.go_back()
    tab.until_list(both)
    assert page.url == address and page.input_value("[aria-label='Year, at least']") == "2010"
    page.click("text=A condition of your own")
    page.get_by_label("Condition, as SQL").fill("year > 9999")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Nothing fits all of this").wait_for()
    tab.go(f"#/try?user={user}&f.genres=it%2527s%20%252C%20odd", "text=Nothing fits all of this")


@pytest.mark.services
def test_the_list_goes_on(tab: Tab, server: Served) -> None:
    user = server.users[20]
    page = tab.go(f"#/try?user={user}", ".card:not(.ghost)")
    page.get_by_role("button", name="Show more").click()
    wanted = server.list(user=user, k=24)
    tab.until_list(wanted)
    assert page.evaluate("document.activeElement.closest('.card').dataset.item") == wanted[12]
    page.get_by_role("button", name="Scores").click()
    assert page.is_visible(".card .figure")


@pytest.mark.services
def test_things_move_unless_they_should_not(browser: Any, server: Served) -> None:
    moving = "document.getAnimations().filter(a => a.effect?.target?.classList?.contains('card')).length"
    for motion, least in (("no-preference", 1), ("reduce", 0)):
        tab = Tab(browser, server.url, reduced_motion=motion)
        page = tab.go(f"#/try?user={server.users[23]}", ".card:not(.ghost)")
        page.wait_for_timeout(600)
        page.evaluate(
            f"window.most = 0; const look = () => {{ window.most = Math.max(window.most, {moving});"
            " requestAnimationFrame(look); }; look();"
        )
        page.get_by_role("button", name="Hide").first.click()
        tab.said()
        page.wait_for_timeout(100)
        assert (page.evaluate("window.most") >= least) if least else (page.evaluate("window.most") == 0)
        tab.context.close()


@pytest.mark.services
def test_text_stays_text(tab: Tab, server: Served) -> None:
    evil = "f000007"
    for address in (f"#/item/{evil}", f"#/try?user={server.users[2]}&where=item%20%3D%20'{evil}'&seen=1"):
        page = tab.go(address, "h1, .card:not(.ghost)")
        page.wait_for_function("text => document.querySelector('main').textContent.includes(text)", arg=EVIL)
    page = tab.go(f"#/try?with={evil}", ".card:not(.ghost)")
    page.wait_for_function("text => document.querySelector('h1').textContent.includes(text)", arg=EVIL)
    tab.go(f"#/user/{server.users[2]}?system=%3Cimg%20src%3Dx%3E", ".notice, h1")
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script, main img[src=x]").count() == 0


@pytest.mark.services
def test_pictures(tab: Tab, server: Served) -> None:
    """An item's own picture where the catalogue has one, a drawn one otherwise or where it cannot be had."""
    page = tab.go(f"#/try?user={server.users[6]}", ".card img")
    shown = {item: int(item[1:]) % 2 for item in tab.items()}
    assert 0 < sum(shown.values()) < len(shown)
    tab.until(f"document.querySelectorAll('.card img').length === {sum(shown.values())}")
    image = page.locator(".card img").first
    assert [image.get_attribute(name) for name in ("alt", "loading", "width", "height")] == ["", "lazy", "200", "300"]
    assert page.locator(".card .cover > svg").count() == len(shown)
    odd = next(item for item, has in shown.items() if has)
    tab.go(f"#/item/{odd}", ".item img")
    tab.pictures = False
    tab.go(f"#/item/{odd}", ".item")
    page.wait_for_selector(".item > .cover img", state="detached")
    assert page.locator(".item > .cover > svg").count() == 1
    tab.expected = "ERR_FAILED"  # the console says so when it likes


# -- two systems, one item


@pytest.mark.services
def test_compare(tab: Tab, server: Served) -> None:
    user = server.users[26]
    page = tab.go(f"#/compare?user={user}&a=ease&b=ials", ".side li")
    left, right = (server.list(user=user, system=name, k=10) for name in ("ease", "ials"))
    both = [item for item in left if item in right]
    assert page.inner_text(".verdict").startswith(f"{len(both)} of 10 are in both lists")
    assert page.locator(".side").first.locator("li.both").count() == len(both) == page.locator(".bridge path").count()
    for item in both:
        change = right.index(item) - left.index(item)
        wanted = "same place" if change == 0 else f"{'▲' if change > 0 else '▼'} {abs(change)}"
        assert page.locator(".side").first.locator(f"[data-item={item}]").inner_text().endswith(wanted)
    boxes = [page.locator(".side").nth(at).bounding_box() for at in (0, 1)]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"] and abs(boxes[0]["width"] - boxes[1]["width"]) < 2
    lines = page.locator(".bridge svg").bounding_box()
    rows = page.locator(".side").first.locator("ol").bounding_box()
    assert abs(lines["y"] - rows["y"]) < 2 and abs(lines["height"] - rows["height"]) < 2  # each line begins at its row
    page.get_by_label("Right").select_option("ease")
    tab.until("document.querySelector('.verdict').textContent.startsWith('10 of 10')")
    assert "100%" in page.inner_text(".verdict")
    page.go_back()
    tab.until(f"document.querySelector('.verdict').textContent.startsWith('{len(both)} of 10')")
    tab.go("#/compare", ".side li")  # nobody is named: somebody is drawn
    assert "user=" in page.url


@pytest.mark.services
def test_item_and_user(tab: Tab, server: Served) -> None:
    user = server.users[29]
    item = server.list(user=user, system="ials")[0]
    about = server.http.get(f"/items/{item}").json()
    page = tab.go(f"#/item/{item}?user={user}&system=ials", ".near .tile")
    assert page.inner_text("h1") == about["title"] and about["columns"]["maker"] in page.inner_text("dl")
    near = server.http.post("/similar", json={"item": item, "k": 12, "system": "ials"}).json()["items"]
    shown = page.eval_on_selector_all(".near .tile a", "all => all.map(one => one.hash)")
    assert [one["item"] in address for one, address in zip(near, shown, strict=True)] == [True] * len(near)
    page.wait_for_selector(".opinion p")
    assert "ials scores it" in page.inner_text(".opinion")
    page.get_by_role("button", name="Like", exact=True).click()
    tab.until("document.querySelector('#toast').textContent.includes('Liked')")
    page = tab.go(f"#/user/{user}", ".tile")
    history = server.http.get(f"/users/{user}?limit=60").json()["history"]
    assert page.locator(".tile").count() == len(history) and history[0]["item"] == item
    tab.page.get_by_role("link", name="See the list").click()
    tab.until_list(server.list(user=user))


# -- by keyboard alone


@pytest.mark.services
def test_by_keyboard_alone(tab: Tab, server: Served) -> None:
    page, user = tab.go("#/pick", ".pick[data-item]"), server.users[32]
    press = page.keyboard.press

    def walk(test: str, most: int = 60) -> None:
        for _ in range(most):
            press("Tab")
            if page.evaluate(f"(() => {{ const a = document.activeElement; return Boolean({test}); }})()"):
                return
        pytest.fail(f"Tab does not reach {test}")

    press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    walk("a.getAttribute('role') === 'combobox'")
    page.keyboard.type(user[-4:])
    page.wait_for_function(
        "id => [...document.querySelectorAll('[role=option]')].some(o => o.textContent === id)", arg=user
    )
    while page.text_content("[aria-selected=true]") != user if page.query_selector("[aria-selected=true]") else True:
        press("ArrowDown")
    press("Enter")
    before = server.list(user=user)
    tab.until_list(before)
    assert page.evaluate("document.activeElement.tagName") == "H1"  # the new page is read from its title
    walk("a.dataset.act === 'like'", 90)
    press("Enter")
    after = server.list(user=user)
    tab.until(f"!document.querySelector('.card:not(.going)[data-item={before[0]}]')")
    tab.until_list(server.list(user=user))
    assert after
    assert page.evaluate("document.activeElement.dataset.act") == "like"
    walk("a.textContent === 'Undo'", 120)
    press("Enter")
    tab.until_list(before)


CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']"
REACHED = f"""
() => [...document.querySelectorAll({json.dumps(CONTROLS)})].filter((one) => !one.disabled && one.tabIndex >= 0
    && one.checkVisibility({{visibilityProperty: true}}) && !one.closest('[inert]')).length
"""


@pytest.mark.services
@pytest.mark.parametrize("view", ["try", "editor", "leaderboard"])
def test_tab_reaches_every_control(tab: Tab, server: Served, view: str) -> None:
    page = tab.go(VIEWS[view].format(user=server.users[3], item="f000003"))
    page.wait_for_selector({"try": ".filters .chip", "editor": ".preview li", "leaderboard": ".plot .dot"}[view])
    wanted = page.evaluate(REACHED)
    page.evaluate("document.activeElement.blur(); window.reached = new Set();")
    for _ in range(wanted + 3):
        page.keyboard.press("Tab")
        page.evaluate("window.reached.add(document.activeElement)")
    assert page.evaluate("[...window.reached].filter((one) => one !== document.body).length") >= wanted


# -- what can be checked of every view

CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")
READY = {
    "pick": ".pick[data-item]", "try": ".filters .chip", "compare": ".side li", "item": ".near .tile", "user": ".tile",
    "leaderboard": ".plot .dot", "pipelines": "h1", "editor": ".preview li", "live": ".figures li",
    "experiment": ".acts button",
}  # fmt: skip


@pytest.mark.services
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_can_be_used_by_everybody(browser: Any, server: Served, scheme: str) -> None:
    """Names, texts for pictures, headings, contrast; on a phone nothing sticks out sideways."""
    tab = Tab(browser, server.url, color_scheme=scheme, reduced_motion="reduce")
    server.http.post("/recommend", json={"user": server.users[3]})
    for view, address in VIEWS.items():
        page = tab.go(address.format(user=server.users[3], item="f000003"), READY[view])
        assert page.evaluate(CHECKS) == [], view
        if scheme == "dark":  # other colours, the same layout
            continue
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
        assert page.evaluate(CHECKS) == [], view
        page.set_viewport_size({"width": 1280, "height": 900})
    assert [one for one in tab.faults if "422" not in one] == []  # an experiment without traffic has nothing to say
    tab.context.close()


@pytest.mark.services
def test_nothing_jumps(browser: Any, server: Served) -> None:
    """The layout does not shift while a list comes in (the browser's own measure; 0.1 is called good)."""
    tab = Tab(browser, server.url, reduced_motion="reduce")
    tab.page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const one of list.getEntries())"
        " if (!one.hadRecentInput) window.shift += one.value; }).observe({type: 'layout-shift', buffered: true});"
    )
    for view in ("try", "pick", "item"):
        page = tab.go(VIEWS[view].format(user=server.users[3], item="f000003"), READY[view])
        page.wait_for_timeout(400)
        assert page.evaluate("window.shift") < 0.1, view
    tab.context.close()


# -- the leaderboard, pipelines, experiments


@pytest.mark.services
def test_leaderboard(tab: Tab) -> None:
    page = tab.go("#/leaderboard", ".plot .dot")
    names = "[...document.querySelectorAll('tbody th')].map((one) => one.textContent.split(' ')[0]).join()"
    assert page.evaluate(names) == "ease,ials,slow"
    page.get_by_role("button", name="ms a request").click()
    tab.until(f"{names} === 'ials,ease,slow'")
    assert page.get_attribute("th[aria-sort]", "aria-sort") == "ascending"
    assert page.evaluate("document.activeElement.dataset.sort") == "ms_per_request"
    assert "ials (0.2300 at 0.3 ms), ease (0.2400 at 0.6 ms)" in page.inner_text(".frontier p")
    assert "slow" not in str(page.get_attribute(".frontier svg", "aria-label"))
    page.reload()
    tab.until(f"{names} === 'ials,ease,slow'")


@pytest.mark.services
def test_pipelines(tab: Tab, server: Served) -> None:
    """Built from the form by keyboard and pointer, told what is wrong where it is wrong, served, and tried."""
    page = tab.go("#/pipelines/%2B", ".diagram img")
    page.get_by_label("Name", exact=True).fill("Not A Name")
    page.wait_for_selector("[aria-invalid=true]")
    assert page.get_by_role("button", name="Save and serve").is_disabled()
    assert page.get_by_label("Name", exact=True).get_attribute("aria-invalid") == "true"
    page.get_by_label("Name", exact=True).fill("mixed")
    page.get_by_role("button", name="Add to retrieve").click()
    page.get_by_label("What to add to rerank").select_option("cap")
    page.get_by_role("button", name="Add to rerank").click()
    page.locator(".stage:has(h3:text('Cap'))").get_by_label("Column").fill("maker")
    page.get_by_label("What to add to rerank").select_option("mmr")
    page.get_by_role("button", name="Add to rerank").click()
    page.locator(".stage:has(h3:text('MMR'))").get_by_label("Column").fill("genres")
    page.locator(".stage:has(h3:text('MMR'))").get_by_role("button", name="Move up").focus()
    page.keyboard.press("Enter")
    order = "[...document.querySelectorAll('.stage h3')].map((one) => one.textContent).join()"
    assert page.evaluate(order) == "1. ease,2. ials,MMR,Cap"
    assert page.evaluate("document.activeElement.dataset.move") == "down"
    tab.until("document.querySelector('.state').textContent === 'It fits together.'")
    tab.until("decodeURIComponent(document.querySelector('.diagram img').src).includes('MMR')")
    assert page.evaluate("document.querySelector('.diagram img').naturalWidth") > 0
    page.reload()  # a draft outlives the page
    page.wait_for_selector(".preview li")
    assert page.evaluate(order) == "1. ease,2. ials,MMR,Cap"
    page.get_by_role("button", name="JSON").click()
    spec = json.loads(page.input_value("textarea.json"))
    assert spec["retrieve"] == [{"system": "ease"}, {"system": "ials"}]
    assert spec["rerank"] == [{"kind": "mmr", "column": "genres"}, {"kind": "cap", "column": "maker"}]
    page.get_by_role("button", name="JSON").click()
    page.get_by_role("button", name="Save and serve").click()
    page.wait_for_function("() => location.hash.startsWith('#/try') || location.hash.startsWith('#/pick')")
    user = server.users[35]
    tab.go(f"#/try?user={user}&system=mixed", ".card:not(.ghost)")
    tab.until_list(server.list(user=user, system="mixed"))
    assert page.input_value("select") == "mixed"
    tab.faults = [one for one in tab.faults if "422" not in one]  # the name that was none


@pytest.mark.services
def test_an_experiment_is_started_and_stopped(tab: Tab, server: Served) -> None:
    page = tab.go("#/live", ".trial")
    assert "draft" in page.inner_text(".trial")
    assert page.locator(".figures li").count() == 4
    page.get_by_role("link", name="knn-or-not").click()
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Stop").click()
    page.locator("dialog").get_by_role("button", name="Cancel").click()
    assert server.http.get("/experiments").json()["experiments"][0]["state"] == "running"
    page.get_by_role("button", name="Stop").click()
    page.locator("dialog").get_by_role("button", name="Stop it").click()
    tab.until("document.querySelector('h1').textContent.includes('stopped')")
    assert server.http.get("/experiments").json()["experiments"][0]["state"] == "stopped"
    tab.faults = [one for one in tab.faults if "422" not in one]  # without traffic there is nothing to say of it


@pytest.mark.services
def test_an_experiment_with_figures(tab: Tab, server: Served) -> None:
    about = {**server.http.get("/experiments").json()["experiments"][0], "name": "made-up", "state": "running"}
    about["arms"] = {"now": {"serve": "ease"}, "new": {"serve": "itemknn"}}
    ends = [(None, None), (None, None), *((0.02 - 0.2 / n, 0.02 + 0.2 / n) for n in range(2, 40))]
    path = [
        {"time": 1_700_000_000_000_000 + 60_000_000 * n, "arm": "new", "difference": 0.02, "low": low, "high": high}
        for n, (low, high) in enumerate(ends)
    ]
    arms = [
        {"arm": "new", "units": 500, "lists": 900, "mean": 0.12, "low": 0.11, "high": 0.13, "difference": 0.02,
         "diff_low": 0.015, "diff_high": 0.025, "p": 0.0004},
        {"arm": "now", "units": 510, "lists": 910, "mean": 0.10, "low": 0.09, "high": 0.11, "difference": None,
         "diff_low": None, "diff_high": None, "p": None},
    ]  # fmt: skip
    answer = {"experiment": about, "arms": arms, "guardrails": [], "shadows": [], "warnings": [], "verdict": "better",
              "explanation": "new is better.", "path": path}  # fmt: skip
    tab.page.route("**/experiments", lambda route: route.fulfill(json={"experiments": [about]}))
    tab.page.route("**/experiments/made-up", lambda route: route.fulfill(json=answer))
    page = tab.go("#/experiments/made-up", ".plot .area")
    assert "An arm is better" in page.inner_text(".verdict")
    assert page.locator("td.good").inner_text().startswith("+0.0200")
    assert "NaN" not in str(page.get_attribute(".plot .area", "d"))
    waits = {"action": "wait", "why": "new is not better than now for certain", "serve": "ease"}
    sent: list[Any] = []

    def promote(route: Any) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(json=waits if len(sent) == 1 else {**waits, "action": "promote", "serve": "itemknn"})

    tab.page.route("**/promote", promote)
    page.get_by_role("button", name="Promote").click()
    page.locator("dialog").get_by_role("button", name="Promote it").click()
    page.locator("dialog").get_by_role("button", name="Promote it all the same").click()
    tab.until("document.querySelector('#toast').textContent.includes('itemknn is served')")
    assert sent == [{"arm": "new"}, {"arm": "new", "force": True}]


# -- a server that asks for keys, and one that has little


@pytest.mark.services
def test_keys(browser: Any, bundles: dict[str, Any], tmp_path: Path) -> None:
    from tastemaker.serve.keys import add_key

    file = tmp_path / "keys.json"
    key = add_key(file, "reader", frozenset({"read", "feedback"}))
    serving = started(bundles, tmp_path, keys_file=file)
    server = next(serving)
    tab = Tab(browser, server.url, reduced_motion="reduce")
    page = tab.go("#/pick", "dialog[open]")
    page.get_by_role("textbox", name="Key").fill("wrong")
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector("dialog [role=alert]")
    page.get_by_role("textbox", name="Key").fill(key)
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector(".pick[data-item]")
    page.reload()
    page.wait_for_selector(".pick[data-item]")
    assert page.locator("dialog").count() == 0
    assert page.evaluate("Object.values(localStorage).join()").count(key) == 0
    tab.go("#/leaderboard", ".notice")  # this server has none, and says so calmly
    assert "No leaderboard here" in page.inner_text(".notice")
    tab.go("#/live", "dialog[open]")  # the key may not see the traffic: another one is asked for, once
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".notice")
    page.wait_for_timeout(300)
    assert page.locator("dialog").count() == 0
    tab.context.close()
    serving.close()


@pytest.mark.services
def test_no_answer(browser: Any, server: Served) -> None:
    tab = Tab(browser, server.url, reduced_motion="reduce")
    page = tab.go(f"#/try?user={server.users[3]}", ".card:not(.ghost)")
    tab.page.route("**/recommend", lambda route: route.abort())
    page.select_option("select", "ials")
    page.wait_for_selector("[role=alert]")
    assert "The server cannot be reached" in page.inner_text("[role=alert]")
    tab.page.unroute("**/recommend")
    page.get_by_role("button", name="Try again").click()
    tab.until_list(server.list(user=server.users[3], system="ials"))
    tab.context.close()
