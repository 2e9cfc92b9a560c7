"""The application from outside: lists, pages, feedback that moves lists, problems in words, keys, limits, swaps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tastemaker.serve.app import create_app
from tastemaker.serve.entry import Entry
from tastemaker.serve.keys import add_key, remove_key


def users(client: Any) -> list[Any]:
    found: list[Any] = client.get("/users").json()["users"]
    return found


def test_a_list_is_answered_written_down_and_moved_by_feedback(make: Callable[..., Any]) -> None:
    runtime = make()
    with TestClient(create_app(runtime)) as client:
        user = users(client)[0]
        found = client.post("/recommend", json={"user": user, "k": 5, "session": "s1"}).json()
        assert [row["rank"] for row in found["items"]] == [1, 2, 3, 4, 5]
        liked, hidden = (row["item"] for row in found["items"][:2])
        events = [
            {"user": user, "item": liked, "kind": "like", "slate": found["slate"], "position": 1, "key": "one"},
            {"user": user, "item": hidden, "kind": "hide", "slate": found["slate"], "position": 2},
        ]
        told = client.post("/feedback", json={"events": events}).json()
        assert (told["stored"], told["doubled"], told["keys"][0]) == (2, 0, "one")
        again = client.post("/feedback", json={"events": events[:1]}).json()
        assert (again["stored"], again["doubled"]) == (0, 1), "the same key counts once"
        after = [row["item"] for row in client.post("/recommend", json={"user": user, "k": 5}).json()["items"]]
        assert liked not in after and hidden not in after
        known = client.get(f"/users/{user}").json()
        assert known["history"][0]["item"] == liked and known["hidden"][0]["item"] == hidden
        client.post("/feedback", json={"events": [{"user": user, "item": hidden, "kind": "undo"}]})
        back = [row["item"] for row in client.post("/recommend", json={"user": user, "k": 20}).json()["items"]]
        assert hidden in back
        slates = [row for frame in runtime.log.slates() for row in frame.iter_rows(named=True)]
        served = next(row for row in slates if row["slate"] == found["slate"])
        assert served["items"] == [row["item"] for row in found["items"]]
        assert (served["system"], served["snapshot"], served["session"]) == ("ials", "first", "s1")


def test_pages_go_on_where_the_one_before_ended(client: Any) -> None:
    user = users(client)[1]
    whole = client.post("/recommend", json={"user": user, "k": 9, "seed": 1}).json()["items"]
    found, body = [], {"user": user, "k": 3}
    for _ in range(3):
        page = client.post("/recommend", json=body).json()
        found += page["items"]
        body["cursor"] = page["next"]
    assert found == whole
    wrong = client.post("/recommend", json={**body, "user": users(client)[2]})
    assert wrong.status_code == 422 and "another question" in wrong.json()["detail"]
    assert client.post("/recommend", json={**body, "cursor": "AAAA"}).status_code == 422


def test_a_batch_answers_each_and_a_fault_of_one_is_its_own(client: Any) -> None:
    some = users(client)[:3]
    requests = [{"user": user, "k": 4} for user in some] + [{"user": some[0], "candidates": ["unheard of"]}]
    answers = client.post("/recommend/batch", json={"requests": requests}).json()["answers"]
    for user, answer in zip(some, answers, strict=False):
        alone = client.post("/recommend", json={"user": user, "k": 4}).json()
        assert answer["items"] == alone["items"]
    assert answers[3]["status"] == 404 and "unheard of" in answers[3]["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/recommend", {"k": 0}, 422, "greater than or equal to 1"),
        ("/recommend", {"user": "u", "kk": 3}, 422, "kk"),
        ("/recommend", {"system": "eas"}, 404, "ease"),
        ("/recommend", {"where": "pricey > 1"}, 404, "pricey"),
        ("/recommend", {"where": "price >"}, 422, "predicate"),
        ("/similar", {"item": "unheard of"}, 404, "unheard of"),
        ("/explain", {"items": ["a"], "system": "popularity"}, 501, "no reasons"),
        ("/feedback", {"events": [{"item": "a"}]}, 422, "names a user"),
        ("/feedback", {"events": []}, 422, "at least 1"),
        ("/nowhere", {}, 404, "Not Found"),
    ],
)
def test_problems_say_what_was_wrong(client: Any, path: str, body: Any, status: int, says: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert says in told["detail"] + str(told.get("hint")) and told["status"] == status


def test_an_error_nobody_expected_says_nothing_of_the_server(make: Callable[..., Any]) -> None:
    runtime = make()
    with TestClient(create_app(runtime), raise_server_exceptions=False) as client:
        runtime._answer = None
        runtime._batchers.clear()
        answer = client.post("/recommend", json={})
    assert answer.status_code == 500
    assert answer.json().keys() == {"type", "title", "status", "detail", "request"}
    assert "NoneType" not in answer.text and "/" not in answer.json()["detail"]


def test_keys_open_what_their_scopes_say(make: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    reader = add_key(file, "reader", frozenset({"read"}))
    teller = add_key(file, "teller", frozenset({"feedback"}))
    boss = add_key(file, "boss", frozenset({"admin"}))
    assert reader not in file.read_text(), "only hashes are kept"
    with TestClient(create_app(make(keys_file=file))) as client:

        def ask(path: str, key: str | None, body: Any = None) -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            answer = (
                client.get(path, headers=headers) if body is None else client.post(path, json=body, headers=headers)
            )
            return int(answer.status_code)

        event = {"events": [{"user": "u", "kind": "visit"}]}
        assert ask("/recommend", None, {}) == 401 and ask("/recommend", "tm_wrong", {}) == 401
        assert ask("/recommend", reader, {}) == 200 and ask("/feedback", reader, event) == 403
        assert ask("/feedback", teller, event) == 200 and ask("/recommend", teller, {}) == 403
        assert ask("/metrics", reader) == 403 and ask("/metrics", boss) == 200
        assert ask("/recommend", boss, {}) == 200 and ask("/health/live", None) == 200
        assert client.get("/systems", headers={"X-API-Key": reader}).status_code == 200
        remove_key(file, "reader")
        client.app.keyring._looked = -1e9
        assert ask("/recommend", reader, {}) == 401, "a key that is taken away stops"


def test_a_caller_that_asks_too_fast_is_told_when_to_come_again(make: Callable[..., Any]) -> None:
    with TestClient(create_app(make(rate=0.5, burst=3))) as client:
        found = [client.post("/recommend", json={}) for _ in range(4)]
        assert [one.status_code for one in found] == [200, 200, 200, 429]
        assert int(found[3].headers["Retry-After"]) in (1, 2)
        assert client.get("/health/live").status_code == 200


def test_a_body_that_is_too_large_is_not_read(make: Callable[..., Any]) -> None:
    with TestClient(create_app(make(body_bytes=2000))) as client:
        large = b'{"user": "' + b"x" * 3000 + b'"}'
        assert client.post("/recommend", content=large).status_code == 413

        def drops() -> Any:  # no length is stated
            yield from (large[n : n + 100] for n in range(0, len(large), 100))

        assert client.post("/recommend", content=drops()).status_code == 413


def test_other_origins_may_not_ask_unless_they_are_named(make: Callable[..., Any]) -> None:
    origin = {"Origin": "https://shop.example"}
    with TestClient(create_app(make())) as client:
        assert "access-control-allow-origin" not in client.get("/systems", headers=origin).headers
    with TestClient(create_app(make(cors=("https://shop.example",)))) as client:
        assert client.get("/systems", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]


def test_a_swap_under_load_is_seen_in_the_snapshot_alone(make: Callable[..., Any], bundles: dict[str, Any]) -> None:
    runtime = make()
    with TestClient(create_app(runtime)) as client:
        user = users(client)[0]
        expected = client.post("/recommend", json={"user": user}).json()["items"]
        found: list[Any] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                answer = client.post("/recommend", json={"user": user})
                found.append((answer.status_code, answer.json().get("snapshot"), answer.json().get("items")))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(5):
            fresh = Entry("ials", bundles["ials"], snapshot=f"swap{number}")
            fresh.warm()
            runtime.put(fresh)
        while len(found) < 30 or found[-1][1] != "swap4":
            threading.Event().wait(0.02)
        over.set()
        for thread in threads:
            thread.join()
        assert {status for status, _, _ in found} == {200}
        assert all(items == expected for _, _, items in found)
        assert client.post("/admin/systems/ials/rollback").json()["snapshot"] == "swap3"


def test_health_metrics_and_the_document(make: Callable[..., Any]) -> None:
    runtime = make()
    with TestClient(create_app(runtime)) as client:
        assert client.get("/health/ready").json()["status"] == "ready"
        client.post("/recommend", json={})
        text = client.get("/metrics").text
        assert 'tastemaker_requests_total{route="/recommend",status="200"} 1.0' in text
        assert "tastemaker_batch_size_bucket" in text
        document = client.get("/openapi.json").json()
        assert {"/recommend", "/feedback", "/similar"} <= document["paths"].keys()
        assert document["components"]["schemas"]["RecommendBody"]["examples"]
        answer = client.get("/systems")
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-request-id"]
        for name in list(runtime.shelf):
            runtime.remove(name)
        assert client.get("/health/ready").status_code == 503
        assert client.post("/recommend", json={}).status_code == 404


def test_systems_tell_what_they_can_and_not_where_they_lie(client: Any) -> None:
    found = client.get("/systems").json()
    assert found["default"] == "ials" and {one["name"] for one in found["systems"]} == {"ials", "ease", "popularity"}
    ials = client.get("/systems/ials").json()
    assert {"recommend", "score", "similar", "explain"} <= set(ials["capabilities"])
    assert "price" in ials["columns"] and ials["items"] > 100


def test_items_and_users_are_found_by_letters_and_paged(client: Any) -> None:
    everything, cursor = [], None
    while True:
        page = client.get("/items", params={"limit": 100, **({"cursor": cursor} if cursor else {})}).json()
        everything += [row["item"] for row in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert len(everything) == len(set(everything)) == page["total"]
    title = client.get(f"/items/{everything[3]}").json()["title"]
    assert everything[3] in [
        row["item"] for row in client.get("/items", params={"find": title.upper()}).json()["items"]
    ]
    assert client.get("/users", params={"find": users(client)[0]}).json()["users"] == [users(client)[0]]
