"""Downloads that can be trusted: over https, resumed where they broke, checked, and there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import tastemaker
from tastemaker.types import DataError, progress, replace_file

GIB = 1 << 30
CHUNK = 1 << 18
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP answers that another try may change
LENGTHS = {"md5": 32, "sha256": 64}  # hexadecimal digits


@dataclass(frozen=True)
class Remote:
    """A file at an address.

    checksum: "sha256:..." or "md5:..." as published; None where none is: then the first download is trusted,
    its sha256 is kept beside the file, and every later use must agree with it
    """

    url: str
    checksum: str | None = None

    def __post_init__(self) -> None:
        if self.checksum is not None:
            kind, _, digest = self.checksum.partition(":")
            if not re.fullmatch(f"[0-9a-f]{{{LENGTHS.get(kind, 1)}}}", digest) or kind not in LENGTHS:
                raise DataError(f"a checksum is md5:... or sha256:... in lower case, got {self.checksum!r}")

    @property
    def name(self) -> str:
        """The file's name: the end of its address."""
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]


def fetch(
    remote: Remote,
    folder: str | Path,
    *,
    limit: int = 64 * GIB,
    retries: int = 3,
    timeout: float = 20.0,
    pause: float = 1.0,
) -> Path:
    """The file of `remote` in `folder`, downloaded if it is not there, and checked either way.

    A broken transfer leaves NAME.part behind and goes on from its end, now or in a later call, where the server
    can and the file has not changed meanwhile. A file that fails its check is removed.

    Args:
        limit: bytes; a longer file is refused.
        retries: how often a transfer that gets no further is tried again; `pause` seconds before the first
            further try, twice as long before each next.
        timeout: seconds without a byte.

    Raises DataError where the file cannot be had or is not what it should be.
    """
    _check_address(remote)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / remote.name
    with _alone(folder / f".{remote.name}.lock"):
        if not target.is_file():
            _download(remote, target, limit, retries, timeout, pause)
        verify(target, remote.checksum)
    return target


def verify(path: Path, checksum: str | None = None, *, ours: bool = True) -> str:
    """The file's digest, "sha256:..." or "md5:...", after comparing it with what is published or remembered.

    Without a published checksum it is compared with NAME.sha256 beside the file. Where the file is `ours`, that
    record is written if it is missing, and a file that contradicts a published checksum is removed.

    Raises DataError where they differ.
    """
    record = _record(path)
    expected = checksum
    if expected is None and record.is_file():
        words = record.read_text(encoding="ascii", errors="replace").split()
        expected = f"sha256:{words[0] if words else ''}"
    kind = (expected or "sha256").partition(":")[0]
    found = f"{kind}:{_digest(path, kind)}"
    if expected is not None and found != expected:
        source = "is published" if checksum else f"was recorded in {record.name} when the file first came"
        hint = f"remove {path.name} and {record.name} to take the file as it now is"
        if checksum:
            hint = "it is removed; fetch it again" if ours else "replace it, or leave it out to have it fetched"
        if checksum and ours:
            path.unlink()
        raise DataError(f"{path} is not what it should be: its checksum is {found}, but {expected} {source}", hint=hint)
    if expected is None and ours:
        with replace_file(record) as fresh:
            fresh.write_text(f"{found.partition(':')[2]}  {path.name}\n", encoding="ascii")
    return found


def forget(path: Path) -> None:
    """Remove a downloaded file and what was recorded of it, so that it may be fetched anew."""
    path.unlink(missing_ok=True)
    _record(path).unlink(missing_ok=True)


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file, progress(f"checking {path.name}", path.stat().st_size) as advance:
        total = hashlib.new(kind, usedforsecurity=False)
        while chunk := file.read(CHUNK):
            total.update(chunk)
            advance(len(chunk))
    return total.hexdigest()


# -- the transfer


@dataclass(frozen=True)
class _Part:
    """What has arrived so far, and of which version of the file it is the beginning."""

    path: Path
    remote: Remote

    @property
    def about(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def usable(self) -> tuple[str | None, int] | None:
        """The server's validator and the whole length; None where the transfer must start anew."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            fits = about["url"] == self.remote.url and 0 < self.size <= about["length"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # Without a validator only a checksum can tell that both halves are of one file.
        return (about["validator"], about["length"]) if fits and (about["validator"] or self.remote.checksum) else None

    def begin(self, validator: str | None, length: int | None) -> None:
        self.drop()
        about = {"url": self.remote.url, "validator": validator, "length": length}
        self.about.write_text(json.dumps(about), encoding="utf-8")

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


class _Broken(Exception):
    """The transfer stopped for a reason that may pass."""


def _download(remote: Remote, target: Path, limit: int, retries: int, timeout: float, pause: float) -> None:
    part = _Part(target.with_name(target.name + ".part"), remote)
    left, wait = retries, pause
    while True:
        before = part.size
        try:
            _transfer(part, limit, timeout)
            break
        except _Broken as error:
            left, wait = (retries, pause) if part.size > before else (left - 1, min(2 * wait, 60.0))
            if left < 0:
                there = f"{part.size:,} bytes are there and need not come again" if part.usable() else "nothing is kept"
                raise DataError(f"{remote.url} cannot be fetched: {error}", hint=f"try again later; {there}") from error
            time.sleep(wait)
    part.path.replace(target)
    part.about.unlink(missing_ok=True)


def _transfer(part: _Part, limit: int, timeout: float) -> None:
    """One request: from the end of the part where that is possible, else from the start."""
    url = part.remote.url
    headers = {"User-Agent": f"tastemaker/{tastemaker.__version__}", "Accept-Encoding": "identity"}
    known, start = part.usable(), 0
    if known:
        validator, length = known
        start = part.size
        if start == length:
            return
        headers["Range"] = f"bytes={start}-"
        headers |= {"If-Range": validator} if validator else {}
    try:
        with _opener(url).open(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
            _receive(answer, part, start, limit)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is no such range: the file is another one now
            part.drop()
        if error.code in PASSING or error.code == 416:
            raise _Broken(f"the server answers {error.code} {error.reason}") from error
        hint = (
            "the address may have moved; where you have the files, name their folder"
            if error.code in (404, 410)
            else None
        )
        raise DataError(
            f"{url} cannot be fetched: the server answers {error.code} {error.reason}", hint=hint
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(f"{url}: the server cannot prove who it is: {reason.verify_message}") from error
        raise _Broken(str(reason) or type(reason).__name__) from error


def _receive(answer: Any, part: _Part, start: int, limit: int) -> None:
    if answer.status != 206:  # the file has changed, or the server cannot resume
        start = 0
    length = _length(answer, part, start)
    if length is None and part.remote.checksum is None and answer.headers.get("Transfer-Encoding") != "chunked":
        raise DataError(f"{part.remote.url}: the server does not say how long the file is, and no checksum is known")
    if length is not None and length > limit:
        _too_long(part, f"is {length:,} bytes long", limit)
    if length is not None and shutil.disk_usage(part.path.parent).free < length - start:
        _no_room(part, f"{length - start:,} bytes are needed")
    if not start:
        etag = answer.headers.get("ETag", "W/")
        part.begin(answer.headers.get("Last-Modified") if etag.startswith("W/") else etag, length)
    size = start
    with part.path.open("ab") as file, progress(f"fetching {part.remote.name}", length) as advance:
        advance(start)
        while chunk := _read(answer):
            size += len(chunk)
            if size > limit:
                _too_long(part, "does not end", limit)
            try:
                file.write(chunk)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    _no_room(part, "the disk is full")
                raise
            advance(len(chunk))
    if length is not None and size != length:
        raise _Broken(f"the connection ended after {size:,} of {length:,} bytes")


def _read(answer: Any) -> bytes:
    try:
        chunk: bytes = answer.read(CHUNK)
    except OSError as error:
        raise _Broken(str(error) or type(error).__name__) from error
    return chunk


def _length(answer: Any, part: _Part, start: int) -> int | None:
    """Bytes of the whole file, as the server states them."""
    if answer.status != 206:
        stated = answer.headers.get("Content-Length", "")
        return int(stated) if re.fullmatch(r"\d+", stated) else None
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
    known = part.usable()
    if not match or known is None or [int(n) for n in match.groups()] != [start, known[1] - 1, known[1]]:
        part.drop()
        raise _Broken("the server sent another range than it was asked for")
    return known[1]


def _too_long(part: _Part, what: str, limit: int) -> NoReturn:
    part.drop()
    raise DataError(f"{part.remote.url} {what}, and at most {limit:,} bytes are taken")


def _no_room(part: _Part, what: str) -> NoReturn:
    raise DataError(
        f"{part.path.parent} has no room for {part.remote.name}: {what}",
        hint="make room, or set TASTEMAKER_CACHE to a folder on a larger disk",
    )


# -- addresses


def _local(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def _check_address(remote: Remote) -> None:
    scheme = urlsplit(remote.url).scheme
    if scheme != "https" and not (scheme == "http" and _local(remote.url)):
        raise DataError(f"{remote.url}: files are fetched over https only")
    if remote.name in ("", ".", "..") or re.search(r"[\\\x00-\x1f]", remote.name):
        raise DataError(f"{remote.url} does not end in the name of a file")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https" and not (_local(req.full_url) and _local(newurl)):
            raise DataError(f"{req.full_url} sends on to {newurl}: files are fetched over https only")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    direct = [urllib.request.ProxyHandler({})] if _local(url) else []
    return urllib.request.build_opener(_Redirects, *direct)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes from fetching the same file at the same time, where the system has locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


__all__ = ["Remote", "fetch", "forget", "verify"]
