"""Conversations on the page, in a real browser: by pointer and keyboard, on a phone, with whatever texts there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
from tests.serve.talking import entry
from tests.serve.test_web import CHECKS, EVIL, REACHED, Served, Tab, browser, started  # noqa: F401 - a fixture

READY = ".greeting .chip"
LAST = ".lines .line-of.it:last-child"


@pytest.fixture(scope="module")
def bundle() -> Any:
    import polars as pl

    from tastemaker.data import synthetic
    from tastemaker.train import fit

    made = fit("itemknn", synthetic(120, seed=2))
    genres, titles = made.catalogue["genres"].to_list(), made.catalogue["title"].to_list()
    titles[next(n for n, kinds in enumerate(genres) if "comedy" in kinds)] = EVIL
    made.catalogue = made.catalogue.with_columns(pl.Series("title", titles))
    return made


@pytest.fixture(scope="module")
def server(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the double and of a system that says what lies near an item; `double` is the former's own object."""
    talker = entry(bundle)
    for served in started({"itemknn": bundle, "talker": talker.bundle}, tmp_path_factory.mktemp("chat")):
        served.double = talker.system  # type: ignore[attr-defined]
        yield served


@pytest.fixture
def tab(browser: Any, server: Served) -> Iterator[Tab]:  # noqa: F811
    tab = Tab(browser, server.url, reduced_motion="reduce")
    yield tab
    tab.context.close()
    assert [fault for fault in tab.faults if not tab.expected or tab.expected not in fault] == []


def say(tab: Tab, text: str) -> None:
    """Write it, send it by the keyboard, and wait for the answer."""
    before = tab.page.locator(".line-of").count()
    tab.page.get_by_label("Message").fill(text)
    tab.page.keyboard.press("Enter")
    answered(tab, before + 2)


def answered(tab: Tab, lines: int) -> None:
    tab.until(
        f"document.querySelectorAll('.line-of').length === {lines} && !document.querySelector('.working')"
        " && document.querySelector('button[aria-label=Send]').checkVisibility()"
    )


@pytest.mark.services
def test_a_conversation_beside_the_list(tab: Tab, server: Served, bundle: Any) -> None:
    user = server.users[4]
    page = tab.go(f"#/chat?user={user}", READY)
    assert page.get_by_role("link", name="Chat").is_visible()
    say(tab, "something for tonight")
    assert page.inner_text(f"{LAST} > p") == "Which genre?"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Message"
    question = page.get_by_role("group", name="Genres")
    assert question.locator("button").all_inner_texts() == ["comedy", "drama", "None of these", "Don’t know"]
    question.get_by_role("button", name="comedy").click()
    answered(tab, 4)
    assert page.inner_text(".line-of.me:nth-last-child(2) p") == "Genres: comedy"
    assert "Some comedy" in page.inner_text(f"{LAST} > p") and question.count() == 0
    comedies = [item for item, kinds in zip(bundle.catalogue["item"].to_list(), server.double.genres, strict=True)  # type: ignore[attr-defined]
                if "comedy" in kinds]  # fmt: skip
    tab.until_list(comedies[:5])
    assert "5 items in the list" in tab.said()
    assert not page.locator(f"{LAST} .steps ol").is_visible()
    page.locator(f"{LAST} summary").click()
    rows = page.locator(f"{LAST} .steps li").all_inner_texts()
    assert [row.split("\n")[0] for row in rows] == ["Look up", "Hard filter", "Ranking"]
    assert "something for tonight" in rows[0] and "left" in rows[0]

    tab.act("like", comedies[1]).click()
    assert tab.act("like", comedies[1]).get_attribute("aria-pressed") == "true"
    assert page.inner_text(".pending") == "1 like: told with what you say next."
    assert server.http.get(f"/users/{user}").json()["history"][0]["item"] == comedies[1], "it is stored at once"
    tab.act("hide", comedies[2]).click()
    tab.until_list([*comedies[:2], *comedies[3:5]])
    assert "1 like and 1 not wanted" in page.inner_text(".pending")
    tab.act("similar", comedies[0]).click()
    page.wait_for_selector("dialog .tile")
    page.keyboard.press("Escape")
    say(tab, "and with a dog")
    tab.until_list([comedies[0], *comedies[2:6]])
    assert page.inner_text(".pending") == ""
    page.reload()
    tab.until_list([comedies[0], *comedies[2:6]])
    assert page.locator(".line-of").count() == 6, "it outlives a reload"
    say(tab, "still there?")
    assert "still there?" in page.inner_text(f"{LAST} > p"), "and so does the session"


@pytest.mark.services
def test_the_profile_is_read_corrected_and_erased(tab: Tab, server: Served) -> None:
    page = tab.go("#/chat", READY)
    page.get_by_role("button", name="Your profile").click()
    assert "Nothing yet" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    say(tab, "with cats")
    session = page.evaluate("Object.entries(sessionStorage).find(([k]) => k.includes('talk '))[1]")
    where = "/sessions/" + session.partition('"session":"')[2].partition('"')[0] + "/profile"
    page.get_by_role("button", name="Your profile").click()
    page.wait_for_selector(".known")
    assert page.locator(".known h3").all_inner_texts() == ["Liked", "Unwanted", "Wishes"]
    assert page.locator(".known .picked").inner_text() == "with cats"
    save = page.get_by_role("button", name="Save")
    assert save.is_disabled()
    page.get_by_label("Add to liked").fill("Heat")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.labels[0].textContent") == "Add to liked"
    page.get_by_role("button", name="Take with cats out of Wishes").click()
    save.click()
    tab.until("document.querySelector('dialog [role=status]').textContent === 'Saved.'")
    assert server.http.get(where).json()["profile"] == {"liked": ["Heat"], "unwanted": [], "wishes": []}
    page.get_by_role("button", name="Erase all of it").click()
    page.locator("dialog.dialog").get_by_role("button", name="Cancel").click()
    assert server.http.get(where).json()["profile"]["liked"] == ["Heat"]
    page.get_by_role("button", name="Erase all of it").click()
    page.locator("dialog.dialog").get_by_role("button", name="Erase").click()
    tab.until("!document.querySelector('.known .picked')")
    assert server.http.get(where).json()["profile"] == {"liked": [], "unwanted": [], "wishes": []}
    page.keyboard.press("Escape")
    say(tab, "now with dogs")
    assert server.http.get(where).json()["profile"]["wishes"] == ["now with dogs"]
    page.get_by_role("button", name="Begin anew").click()
    page.wait_for_selector(READY)
    assert page.locator(".line-of").count() == 0
    tab.until("Object.keys(sessionStorage).every((one) => !one.includes('talk '))")
    for _ in range(100):
        if server.http.get(where).status_code == 404:
            break
        page.wait_for_timeout(20)
    assert server.http.get(where).status_code == 404, "the server has forgotten it too"


@pytest.mark.services
def test_a_turn_can_be_stopped_and_can_fail(tab: Tab, server: Served) -> None:
    double: Any = server.double  # type: ignore[attr-defined]
    page = tab.go("#/chat", READY)
    held = threading.Event()
    double.pause = lambda: held.wait(20)
    try:
        page.get_by_label("Message").fill("slowly")
        page.get_by_role("button", name="Send").click()
        tab.until("document.querySelector('.working')?.textContent === 'Look up …'")  # a step, while it is at work
        page.get_by_role("button", name="Stop").click()
        tab.until("document.querySelector('.lines').textContent.includes('as if you had not said that')")
    finally:
        held.set()
        double.pause = lambda: None
    assert page.input_value("textarea") == "slowly" and page.locator(".line-of.me").count() == 0
    page.get_by_label("Message").fill("fail")
    page.keyboard.press("Enter")
    page.wait_for_selector(".line-of [role=alert]")
    assert "out of order" in page.inner_text("[role=alert]") and page.input_value("textarea") == "fail"
    page.get_by_label("Message").fill("better")
    page.keyboard.press("Enter")
    answered(tab, 2)
    assert page.locator("[role=alert]").count() == 0
    session = page.evaluate("Object.entries(sessionStorage).find(([k]) => k.includes('talk '))[1]")
    server.http.delete("/sessions/" + session.partition('"session":"')[2].partition('"')[0])
    page.get_by_label("Message").fill("gone")
    page.keyboard.press("Enter")
    page.locator(".line-of").get_by_role("button", name="Begin anew").click()
    assert page.input_value("textarea") == "gone" and page.locator(".line-of").count() == 0
    page.keyboard.press("Enter")
    answered(tab, 2)
    tab.expected = "404"


@pytest.mark.services
def test_words_of_a_conversation_stay_text(tab: Tab) -> None:
    page = tab.go("#/chat", READY)
    say(tab, EVIL)
    page.get_by_role("button", name="comedy").click()
    answered(tab, 4)
    page.locator(f"{LAST} summary").click()
    for where in (".line-of.me", LAST, f"{LAST} .steps", ".cards"):
        page.wait_for_function(
            "([where, text]) => document.querySelector(where).textContent.includes(text)", arg=[where, EVIL]
        )
    page.get_by_role("button", name="Your profile").click()
    page.wait_for_function("text => document.querySelector('.known .picked')?.textContent.includes(text)", arg=EVIL)
    assert page.evaluate("window.hacked") is None
    assert page.locator("main script, main img[src=x], dialog img, dialog script").count() == 0


@pytest.mark.services
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_talk(browser: Any, server: Served, scheme: str) -> None:  # noqa: F811
    """Names, headings, contrast; every control by the Tab key; on a phone nothing sticks out, and the field is seen."""
    tab = Tab(browser, server.url, color_scheme=scheme, reduced_motion="reduce")
    for size in ({"width": 1280, "height": 900}, {"width": 390, "height": 844}):
        tab.page.set_viewport_size(size)
        page = tab.go("#/chat", READY)
        assert page.evaluate(CHECKS) == []
        say(tab, "a film")
        assert page.evaluate(CHECKS) == []
        page.get_by_role("button", name="comedy").click()
        answered(tab, 4)
        page.locator(f"{LAST} summary").click()
        tab.until("document.querySelector('.card .facts')?.textContent !== ''")
        assert page.evaluate(CHECKS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        field, menu = page.locator("textarea").bounding_box(), page.locator("nav").bounding_box()
        lowest = menu["y"] if size["width"] < 700 else size["height"]
        assert field["y"] + field["height"] <= lowest, "the field lies above the menu"
        if scheme == "light":  # in other colours the controls are the same
            wanted = page.evaluate(REACHED)
            page.evaluate("document.activeElement.blur(); window.reached = new Set();")
            for _ in range(wanted + 3):
                page.keyboard.press("Tab")
                page.evaluate("window.reached.add(document.activeElement)")
            assert page.evaluate("[...window.reached].filter((one) => one !== document.body).length") >= wanted
            page.get_by_role("button", name="Your profile").click()
            page.wait_for_selector(".known")
            assert page.evaluate(CHECKS) == []
            page.keyboard.press("Escape")
            log = page.locator("[role=log]")
            assert log.get_attribute("aria-live") == "polite" and log.get_attribute("aria-label") == "Conversation"
        page.get_by_role("button", name="Begin anew").click()
    assert tab.faults == []
    tab.context.close()


@pytest.mark.services
def test_a_server_without_conversations_offers_none(
    browser: Any,  # noqa: F811
    bundle: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for served in started({"itemknn": bundle}, tmp_path_factory.mktemp("silent")):
        tab = Tab(browser, served.url, reduced_motion="reduce")
        page = tab.go("#/pick", ".pick[data-item]")
        assert page.get_by_role("link", name="Chat").count() == 0
        page = tab.go("#/chat", ".notice")
        assert "Nobody here to talk to" in page.inner_text(".notice")
        assert tab.faults == []
        tab.context.close()


@pytest.mark.services
def test_the_agent_and_its_rules_on_the_page(
    browser: Any,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """An agent without a language model: it finds what was asked for, says how, and its profile is the person's own."""
    from tastemaker.contracts import names
    from tastemaker.data import synthetic
    from tastemaker.train import fit

    if "interecagent" not in names():
        pytest.skip("this system was taken out")
    bundle = fit("interecagent", synthetic(300, seed=2))
    about = {row["item"]: row for row in bundle.catalogue.iter_rows(named=True)}
    for served in started({"interecagent": bundle}, tmp_path_factory.mktemp("agent")):
        tab = Tab(browser, served.url, reduced_motion="reduce")
        page = tab.go("#/chat", READY)
        say(tab, "a comedy from the nineties")
        page.wait_for_selector(".card")
        found = [about[item] for item in tab.items()]
        assert found and all("comedy" in one["genres"] and 1990 <= one["year"] < 2000 for one in found)
        page.locator(f"{LAST} summary").click()
        assert "Hard filter" in page.inner_text(f"{LAST} .steps") and "1990" in page.inner_text(f"{LAST} .steps")
        tab.act("like", found[0]["item"]).click()
        say(tab, "something else")
        page.get_by_role("button", name="Your profile").click()
        liked = page.locator(".known:has(h3:text-is('Liked'))")
        assert found[0]["title"] in liked.inner_text()
        liked.get_by_role("button", name=f"Take {found[0]['title']} out of Liked").click()
        page.get_by_role("button", name="Save").click()
        tab.until("document.querySelector('dialog [role=status]').textContent === 'Saved.'")
        assert found[0]["title"] not in liked.inner_text()
        page.get_by_role("button", name="Erase all of it").click()
        page.locator("dialog.dialog").get_by_role("button", name="Erase").click()
        tab.until("!document.querySelector('.known .picked')")
        assert tab.faults == []
        tab.context.close()
