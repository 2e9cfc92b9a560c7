"""Downloads: whole or not at all, resumed where they broke, refused where they are not what they should be."""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tastemaker.data.sources.fetch import Remote, fetch, verify
from tastemaker.types import DataError

Server = tuple[str, Any]
CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
FAST: dict[str, Any] = {"pause": 0.01, "timeout": 5.0}


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []


def test_a_file_comes_whole_once_and_is_checked(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"] = CONTENT
    for checksum in (SHA, MD5):
        path = fetch(Remote(url + "a.bin", checksum), tmp_path / "x", **FAST)
        assert path.read_bytes() == CONTENT
    assert script.asked == [None] and files(tmp_path / "x") == ["a.bin"]


@pytest.mark.parametrize(("etag", "checksum"), [('"one"', None), ('"one"', SHA), (None, SHA)])
def test_a_broken_transfer_goes_on_where_it_broke(
    server: Server, tmp_path: Path, etag: str | None, checksum: str | None
) -> None:
    url, script = server
    script.files["a.bin"], script.cut, script.etag = CONTENT, [100_000, 50_000], etag
    path = fetch(Remote(url + "a.bin", checksum), tmp_path, **FAST)
    assert path.read_bytes() == CONTENT
    assert script.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_goes_on_too(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"], script.cut = CONTENT, [100_000, 0]
    with pytest.raises(DataError, match=r"ended after 100,000 of 300,000 bytes(.|\n)*100,000 bytes are there"):
        fetch(Remote(url + "a.bin"), tmp_path, retries=0, **FAST)
    assert files(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    fetch(Remote(url + "a.bin"), tmp_path, **FAST)
    assert script.asked == [None, "bytes=100000-", "bytes=100000-"] and files(tmp_path) == ["a.bin", "a.bin.sha256"]


def test_halves_of_two_files_are_never_joined(server: Server, tmp_path: Path) -> None:
    """The file changes between two tries: the server sees it by the tag, and the transfer starts anew."""
    url, script = server
    script.files["a.bin"], script.cut = CONTENT, [100_000, 0]
    with pytest.raises(DataError):
        fetch(Remote(url + "a.bin"), tmp_path, retries=0, **FAST)
    script.files["a.bin"], script.etag = CONTENT[::-1], '"two"'
    assert fetch(Remote(url + "a.bin"), tmp_path, **FAST).read_bytes() == CONTENT[::-1]
    assert script.asked[-1] == "bytes=100000-"


def test_a_server_without_ranges_or_tags_starts_anew(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"], script.cut, script.ranges = CONTENT, [100_000], False
    assert fetch(Remote(url + "a.bin"), tmp_path / "1", **FAST).read_bytes() == CONTENT
    script.cut, script.ranges, script.etag, script.asked = [100_000], True, None, []
    assert fetch(Remote(url + "a.bin"), tmp_path / "2", **FAST).read_bytes() == CONTENT
    assert script.asked == [None, None], "without a tag and a checksum nothing tells that both halves are of one file"


def test_a_file_that_shrank_starts_anew(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"], script.cut, script.etag = CONTENT, [100_000, 0], None
    remote = Remote(url + "a.bin", "sha256:" + hashlib.sha256(b"short").hexdigest())
    with pytest.raises(DataError):
        fetch(remote, tmp_path, retries=0, **FAST)
    script.files["a.bin"] = b"short"
    assert fetch(remote, tmp_path, **FAST).read_bytes() == b"short"


@pytest.mark.parametrize("wrong", ["sha256:" + "0" * 64, "md5:" + "0" * 32])
def test_a_wrong_checksum_is_refused_and_the_file_removed(server: Server, tmp_path: Path, wrong: str) -> None:
    url, script = server
    script.files["a.bin"] = CONTENT
    with pytest.raises(DataError, match="is not what it should be"):
        fetch(Remote(url + "a.bin", wrong), tmp_path, **FAST)
    assert files(tmp_path) == []


def test_the_first_download_is_trusted_and_later_ones_must_equal_it(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"] = CONTENT
    path = fetch(Remote(url + "a.bin"), tmp_path, **FAST)
    assert (tmp_path / "a.bin.sha256").read_text() == f"{SHA.removeprefix('sha256:')}  a.bin\n"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"was recorded in a\.bin\.sha256"):
        fetch(Remote(url + "a.bin"), tmp_path, **FAST)
    path.unlink()
    script.files["a.bin"] = CONTENT[::-1]
    with pytest.raises(DataError, match="was recorded"):
        fetch(Remote(url + "a.bin"), tmp_path, **FAST)
    script.files["a.bin"] = CONTENT
    path.unlink()
    assert fetch(Remote(url + "a.bin"), tmp_path, **FAST).read_bytes() == CONTENT


def test_files_of_others_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with pytest.raises(DataError, match="replace it"):
        verify(tmp_path / "a.bin", "sha256:" + "0" * 64, ours=False)
    assert verify(tmp_path / "a.bin", ours=False) == SHA
    assert files(tmp_path) == ["a.bin"]


def test_answers_that_may_pass_are_tried_again_and_others_not(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"], script.answers = CONTENT, [503, 429, 500]
    fetch(Remote(url + "a.bin", SHA), tmp_path, **FAST)
    assert len(script.asked) == 4
    script.asked, script.answers = [], [503] * 9
    with pytest.raises(DataError, match="answers 503"):
        fetch(Remote(url + "b.bin", SHA), tmp_path, retries=2, **FAST)
    assert len(script.asked) == 3
    script.asked, script.answers = [], []
    with pytest.raises(DataError, match=r"answers 404 Not Found(.|\n)*name their folder"):
        fetch(Remote(url + "b.bin", SHA), tmp_path, **FAST)
    assert len(script.asked) == 1 and files(tmp_path) == ["a.bin"]


def test_a_silent_server_and_one_that_is_not_there(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"], script.stall = CONTENT, [30.0]
    fetch(Remote(url + "a.bin", SHA), tmp_path, pause=0.01, timeout=0.2)
    assert len(script.asked) == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=r"cannot be fetched: .*refused"):
        fetch(Remote(f"http://127.0.0.1:{port}/a.bin"), tmp_path / "x", retries=1, **FAST)
    assert files(tmp_path / "x") == []


def test_more_bytes_than_allowed_are_refused(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"] = CONTENT
    with pytest.raises(DataError, match=r"300,000 bytes long, and at most 299,999"):
        fetch(Remote(url + "a.bin", SHA), tmp_path, limit=299_999, **FAST)
    script.stated = False
    with pytest.raises(DataError, match="does not end, and at most 299,999"):
        fetch(Remote(url + "a.bin", SHA), tmp_path, limit=299_999, **FAST)
    assert files(tmp_path) == []
    assert fetch(Remote(url + "a.bin", SHA), tmp_path, **FAST).read_bytes() == CONTENT
    with pytest.raises(DataError, match="does not say how long"):
        fetch(Remote(url + "a.bin"), tmp_path / "x", **FAST)


def test_a_full_disk_is_said_before_the_transfer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, script = server
    script.files["a.bin"] = CONTENT
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"no room for a\.bin: 300,000 bytes(.|\n)*TASTEMAKER_CACHE"):
        fetch(Remote(url + "a.bin"), tmp_path, **FAST)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.zip",
        "ftp://example.org/a.zip",
        "file:///etc/passwd",
        "https://example.org/",
        "https://x/..",
    ],
)
def test_only_https_and_only_files(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"https only|name of a file"):
        fetch(Remote(url), tmp_path, **FAST)


def test_a_server_cannot_send_us_elsewhere(server: Server, tmp_path: Path) -> None:
    url, script = server
    for script.to, says in (
        ("http://example.org/a.bin", "https only"),
        ("ftp://example.org/a.bin", "https only"),
        ("file:///etc/passwd", "is not allowed"),
    ):
        with pytest.raises(DataError, match=says):
            fetch(Remote(url + "a.bin"), tmp_path, retries=0, **FAST)
    assert files(tmp_path) == []


def test_two_at_once_fetch_one_file_once(server: Server, tmp_path: Path) -> None:
    url, script = server
    script.files["a.bin"], script.stall = CONTENT, [0.3]
    threads = [
        threading.Thread(target=fetch, args=(Remote(url + "a.bin", SHA), tmp_path), kwargs=FAST) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert script.asked == [None] and (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_checksum_is_of_a_known_kind() -> None:
    for wrong in ("sha1:" + "0" * 40, "sha256:abc", "0" * 64, "sha256:" + "A" * 64):
        with pytest.raises(DataError, match="a checksum is"):
            Remote("https://example.org/a", wrong)
