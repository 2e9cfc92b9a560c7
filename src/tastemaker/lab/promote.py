"""A bundle takes another's place while servers read it: whole before it is seen, and the one before stays beside it.

    OUT             what is served
    OUT.previous    what was served before it; `roll_back` lets the two change places

The new bundle is written beside OUT, under a hidden name, and synced to the disk. Then the two folders change places in
one step of the file system (renameat2 with RENAME_EXCHANGE on Linux, renamex_np with RENAME_SWAP on macOS), so there is
no moment at which OUT is not a whole bundle. Where a file system cannot do that, OUT is moved aside and the new one in,
and what a crash between the two leaves is put right by the next call (`recover`). Renewals of one OUT take turns.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tastemaker.train.bundle import MANIFEST, Bundle, read_manifest
from tastemaker.types import BundleError, NotFound, UsageError

UNABLE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM}
HERE, EXCHANGE = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS


def previous(out: str | Path) -> Path:
    """Where the bundle before this one is."""
    out = Path(out)
    return out.with_name(f"{out.name}.previous")


def snapshot(folder: str | Path) -> str:
    """What tells this bundle from others; servers name it with each list.

    Raises:
        NotFound: there is no bundle.
    """
    manifest = Path(folder) / MANIFEST
    if not manifest.is_file():
        raise NotFound(f"there is no bundle at {folder}")
    return hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]


@contextmanager
def turn(out: str | Path) -> Iterator[Path]:
    """The right to renew OUT, which one process has at a time; what an earlier one left half-done is put right first.

    Yields OUT, links followed.

    Raises:
        UsageError: another process has it.
    """
    path = Path(out).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks here: renewals must not be started twice
            pass
        except BlockingIOError as error:
            raise UsageError(f"{path} is being renewed already", hint="wait until that is done") from error
        recover(path)
        yield path


def stage(bundle: Bundle, out: Path) -> Path:
    """Write a bundle beside OUT, whole and on the disk; nothing reads it yet."""
    folder = bundle.save(_hidden(out, "next"))
    if os.name != "posix":
        return folder
    for path in [*folder.iterdir(), folder, folder.parent]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return folder


def promote(out: Path) -> None:
    """Let what was staged take OUT's place, and what was there that of OUT.previous.

    Raises:
        NotFound: nothing was staged.
        BundleError: what was staged is damaged.
        UsageError: OUT is there and is no bundle.
    """
    fresh, before = _hidden(out, "next"), _hidden(out, "before")
    read_manifest(fresh)
    if not out.exists():
        os.rename(fresh, out)
        return
    if not (out / MANIFEST).is_file():
        raise UsageError(f"{out} is there and holds no bundle: it is left alone")
    if exchange(fresh, out):
        os.rename(fresh, before)
    else:
        os.rename(out, before)
        os.rename(fresh, out)
    _retire(out)


def roll_back(out: str | Path) -> Path:
    """Let OUT and OUT.previous change places. Returns OUT.

    Raises:
        NotFound: there is nothing to go back to.
    """
    with turn(out) as path:
        back = previous(path)
        if not back.is_dir():
            raise NotFound(f"there is no bundle at {back} to go back to")
        read_manifest(back)
        if not exchange(back, path):
            before = _hidden(path, "before")
            os.rename(path, before)
            os.rename(back, path)
            os.rename(before, back)
        return path


def recover(out: Path) -> None:
    """Put right what a crash in `promote` or `roll_back` left, if anything; what was staged and not promoted goes."""
    fresh, before = _hidden(out, "next"), _hidden(out, "before")
    shutil.rmtree(_hidden(out, "gone"), ignore_errors=True)
    if before.is_dir() and not out.exists():
        os.rename(before, out)
    if fresh.is_dir() and not before.exists() and _origin(out) == _name(fresh):
        os.rename(fresh, before)  # the folders had changed places, and this is the old one
    if before.is_dir():
        _retire(out)
    shutil.rmtree(fresh, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where that cannot be done here, and nothing has happened."""
    if sys.platform not in ("linux", "darwin"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(HERE, names[0], HERE, names[1], EXCHANGE)
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*names, EXCHANGE)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in UNABLE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _retire(out: Path) -> None:
    """What stood in OUT before becomes OUT.previous; what was that goes."""
    before, back, gone = _hidden(out, "before"), previous(out), _hidden(out, "gone")
    if back.exists():
        os.rename(back, gone)
    os.rename(before, back)
    shutil.rmtree(gone, ignore_errors=True)


def _hidden(out: Path, what: str) -> Path:
    return out.with_name(f".{out.name}.{what}")


def _origin(folder: Path) -> str | None:
    """The snapshot whose place a renewed bundle was to take."""
    try:
        found = read_manifest(folder).about.get("refresh", {}).get("replaces")
    except (NotFound, BundleError):
        return None
    return None if found is None else str(found)


def _name(folder: Path) -> str | None:
    return snapshot(folder) if (folder / MANIFEST).is_file() else None
