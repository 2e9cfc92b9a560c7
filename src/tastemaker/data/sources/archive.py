"""Archives from strangers, unpacked without letting them write elsewhere, fill the disk or hide anything.

Zip, gzipped tar and gzip. Every entry is judged by what it really unpacks to, never by what it says of itself.
"""

from __future__ import annotations

import errno
import gzip
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn, Protocol, cast

from tastemaker.types import DataError, NotFound, Problem, progress, replace_folder

CHUNK = 1 << 18
SMALL = 1 << 24  # an archive may unpack to this many bytes at any ratio
HEADERS = 1 << 20  # bytes of headers between two entries of a tar
NAME_BYTES, PATH_BYTES = 255, 1024
DIRECTORY_BYTES = 1 << 10  # of a zip's directory, for each entry allowed
TAR_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
ZIP_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    struct.error,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to: bytes in all, files and folders, bytes for each byte of the archive."""

    size: int = 64 << 30
    entries: int = 10_000
    ratio: float = 200.0


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


Entry = tuple[str, _Stream | None]
"""Name and contents; no contents for a folder."""


def unpack(
    archive: str | Path, folder: str | Path, *, only: Collection[str] | None = None, limits: Limits | None = None
) -> Path:
    """Unpack `archive` into `folder`, which takes the place of an older one, whole or not at all.

    `only` names the files wanted (without their folders); the others are checked as far as their headers go. A
    .gz that is no tar gives one file, named as the archive without its ending.

    Raises DataError that names the entry, where one would land outside, twice, or as anything but a plain file;
    where the archive unpacks to more than `limits`; where it is damaged, encrypted or of another kind.
    """
    archive = Path(archive)
    watch = _Watch(archive, limits or Limits())
    entries = _entries_of(archive)
    try:
        with replace_folder(folder) as fresh, progress(f"unpacking {archive.name}", None) as advance:
            for name, stream in entries(archive, watch):
                path = watch.place(name, is_folder=stream is None)
                if path is None:
                    continue
                if stream is None:
                    (fresh / path).mkdir(parents=True, exist_ok=True)
                elif only is None or path.name in only:
                    (fresh / path).parent.mkdir(parents=True, exist_ok=True)
                    with (fresh / path).open("xb") as file:
                        while chunk := stream.read(CHUNK):
                            file.write(chunk)
                            advance(len(chunk))
    except DAMAGED as error:
        problem = Problem(f"cannot be unpacked: {error}", archive.name, value=watch.entry or None)
        raise DataError(f"{archive} is damaged", [problem], hint="remove it and fetch it again") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(f"the disk is full: {archive} does not fit into {Path(folder).parent}") from error
        raise
    return Path(folder)


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is one of the kinds unpacked here."""
    return path.name.lower().endswith((".zip", ".tgz", ".gz"))


def locate(folder: Path, name: str) -> Path:
    """The file `name` in a folder, or at most two folders below it.

    Raises NotFound where there is none.
    """
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    raise NotFound(f"{folder} holds no {name}")


def _entries_of(archive: Path) -> Callable[[Path, _Watch], Iterator[Entry]]:
    """The reader for the archive, by its first bytes."""
    with archive.open("rb") as file:
        start = file.read(4)
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip
    if start.startswith(b"\x1f\x8b"):
        return _tar if archive.name.lower().endswith((".tar.gz", ".tgz")) else _gzip
    raise DataError(f"{archive} is no zip, tar.gz or gz file: it begins with {start!r}")


class _Watch:
    """Keeps count of names and bytes, and stops at the first entry that breaks a rule."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.archive, self.limits = archive, limits
        self.packed = max(1, archive.stat().st_size)
        self.unpacked = self.entries = 0
        self.entry = ""  # the one at hand
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def refuse(self, entry: str, what: str) -> NoReturn:
        shown = entry if len(entry) <= 120 else entry[:117] + "..."
        raise DataError(f"{self.archive} is refused", [Problem(f"the entry {what}", self.archive.name, value=shown)])

    def place(self, name: str, *, is_folder: bool) -> PurePosixPath | None:
        """Where an entry goes below the folder; None for the folder itself."""
        self.entries, self.entry = self.entries + 1, name
        if self.entries > self.limits.entries:
            self.refuse(name, f"is one more than the {self.limits.entries:,} allowed")
        if re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", name):
            self.refuse(name, "has a backslash, a control character or a broken one in its name")
        if name.startswith("/") or PureWindowsPath(name).drive:
            self.refuse(name, "names an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            self.refuse(name, "leads out of its folder")
        if not parts:
            if not is_folder:
                self.refuse(name, "has no name")
            return None
        if max(len(p.encode("utf-8", "replace")) for p in parts) > NAME_BYTES or len(name) > PATH_BYTES:
            self.refuse(name, "has too long a name")
        # Names that some file system takes for the same: by case, by how accents are written.
        same = [unicodedata.normalize("NFC", part).casefold() for part in parts]
        above = {"/".join(same[:depth]) for depth in range(1, len(same))}
        key = "/".join(same)
        if key in self.files or (not is_folder and key in self.folders):
            self.refuse(name, "is there twice")
        if above & self.files:
            self.refuse(name, "lies below a file")
        self.folders |= above | ({key} if is_folder else set())
        self.files |= set() if is_folder else {key}
        return PurePosixPath(*parts)

    def spend(self, n: int) -> None:
        """Count bytes that were unpacked."""
        self.unpacked += n
        self.fits(self.entry, self.unpacked)

    def fits(self, name: str, size: int) -> None:
        """Refuse an entry with which the archive comes to too many bytes."""
        if size > self.limits.size:
            self.refuse(name, f"takes the archive beyond {self.limits.size:,} bytes")
        if size > max(SMALL, self.limits.ratio * self.packed):
            self.refuse(name, f"takes the archive beyond {self.limits.ratio:g} times its own size")


class _Counted:
    """Bytes that are counted as they are unpacked; `room` bounds those read while a tar's next header is looked for."""

    def __init__(self, stream: _Stream, watch: _Watch, room: int | None = None) -> None:
        self.stream, self.watch, self.room = stream, watch, room

    def read(self, size: int, /) -> bytes:
        data = self.stream.read(size)
        self.watch.spend(len(data))
        if self.room is not None:
            self.room -= len(data)
            if self.room < 0:
                self.watch.refuse(self.watch.entry, f"is followed by more than {HEADERS:,} bytes of headers")
        return data


# -- one generator a kind of archive: names and contents, one after the other


def _gzip(archive: Path, watch: _Watch) -> Iterator[Entry]:
    with gzip.open(archive, "rb") as stream:
        yield archive.name[:-3] if archive.name.lower().endswith(".gz") else archive.name, _Counted(stream, watch)


def _zip(archive: Path, watch: _Watch) -> Iterator[Entry]:
    _check_directory(archive, watch)
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        _check_zip(entries, watch)
        for info in entries:
            if info.is_dir():
                yield info.filename, None
                continue
            with opened.open(info) as stream:
                yield info.filename, _Counted(stream, watch)


def _check_directory(archive: Path, watch: _Watch) -> None:
    """Refuse a zip whose directory is larger than the entries allowed, before it is read into memory."""
    with archive.open("rb") as file:
        end = max(0, watch.packed - (1 << 16) - 22 - 20 - 56)
        file.seek(end)
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise zipfile.BadZipFile("it ends before its directory")
    (size,) = struct.unpack_from("<I", tail, at + 12)
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # the larger form, just before
        (size,) = struct.unpack_from("<Q", tail, at - 76 + 40)
    if size > DIRECTORY_BYTES * watch.limits.entries:
        watch.refuse(archive.name, f"has a directory of {size:,} bytes, for more than {watch.limits.entries:,} entries")


def _check_zip(entries: list[zipfile.ZipInfo], watch: _Watch) -> None:
    """What the directory tells of all entries: kinds, encryption, shared bytes, sizes as stated."""
    stated = 0
    end, before = 0, ""
    for info in sorted(entries, key=lambda entry: entry.header_offset):
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            watch.refuse(name, f"is {ZIP_KINDS.get(kind, 'no plain file')}")
        if "\x00" in name:
            watch.refuse(name, "has a control character in its name")
        if info.flag_bits & 0x1:
            watch.refuse(name, "is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            watch.refuse(name, f"is packed in a way that is not read here (method {info.compress_type})")
        if info.header_offset < end:
            watch.refuse(name, f"shares its bytes with {before!r}")
        end, before = info.header_offset + 30 + len(name.encode("utf-8", "replace")) + info.compress_size, name
        stated += info.file_size
        watch.fits(name, stated)


def _tar(archive: Path, watch: _Watch) -> Iterator[Entry]:
    with gzip.open(archive, "rb") as unzipped:
        stream = _Counted(unzipped, watch, HEADERS)  # a header may claim any length, and tarfile reads it whole
        with tarfile.open(fileobj=cast(Any, stream), mode="r|") as opened:
            while (member := opened.next()) is not None:
                stream.room = None
                if member.isdir():
                    yield member.name, None
                elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    watch.fits(member.name, watch.unpacked + member.size)
                    contents = cast(Any, opened.extractfile(member))
                    yield member.name, contents
                    while contents.read(CHUNK):  # what was not wanted is passed over, but counted
                        pass
                else:
                    watch.refuse(member.name, f"is {TAR_KINDS.get(member.type, 'no plain file')}")
                stream.room = HEADERS
        stream.room = None
        while stream.read(CHUNK):  # to the end, where gzip keeps its checksum
            pass


__all__ = ["Limits", "is_archive", "locate", "unpack"]
