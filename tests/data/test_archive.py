"""Archives from strangers: good ones come out whole, hostile ones leave nothing behind."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.sources import archive as module
from tastemaker.data.sources.archive import Limits, unpack
from tastemaker.types import DataError, quiet

Item = tuple[str, bytes]


def make_zip(path: Path, items: list[Item], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in items:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.compress_type = method
            archive.writestr(info, data)
    return path


def make_tar(path: Path, items: list[Item], extra: list[tarfile.TarInfo] = []) -> Path:  # noqa: B006
    with tarfile.open(path, "w:gz") as archive:
        for name, data in items:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A folder to unpack in, with everything around it in sight."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def refused(archive: Path, yard: Path, says: str, entry: str | None = None, limits: Limits | None = None) -> None:
    """The archive is refused, the entry is named, and nothing was written anywhere."""
    before = sorted(yard.parent.rglob("*"))
    with pytest.raises(DataError, match=says) as caught:
        unpack(archive, yard / "out", limits=limits)
    assert sorted(yard.parent.rglob("*")) == before
    if entry is not None:
        assert [problem.value for problem in caught.value.problems] == [entry]


GOOD: list[Item] = [("set/a.csv", b"1,2\n" * 1000), ("set/deep/er/b.txt", "é\n".encode()), ("c", b"")]


@pytest.mark.parametrize(("make", "name"), [(make_zip, "x.zip"), (make_tar, "x.tar.gz"), (make_tar, "x.tgz")])
def test_comes_out_whole(make: Callable[..., Path], name: str, yard: Path) -> None:
    archive = make(yard / name, GOOD)
    assert tree(unpack(archive, yard / "out")) == dict(GOOD)
    assert not [p for p in (yard / "out").rglob("*") if p.stat().st_mode & 0o7000]
    assert tree(unpack(archive, yard / "out", only={"b.txt"})) == {"set/deep/er/b.txt": GOOD[1][1]}


def test_gzip_gives_one_file_named_as_the_archive(yard: Path) -> None:
    with gzip.GzipFile(yard / "ratings.csv.gz", "wb") as file:
        file.write(b"a,b\n")
    with gzip.GzipFile("../../evil", "ab", fileobj=(yard / "ratings.csv.gz").open("ab")) as file:
        file.write(b"c,d\n")  # a second member; what a member calls itself counts for nothing
    assert tree(unpack(yard / "ratings.csv.gz", yard / "out")) == {"ratings.csv": b"a,b\nc,d\n"}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,3}(/[A-Z0-9._ -]{0,3}[a-z]){0,2}", fullmatch=True), st.binary(max_size=200), max_size=6
    )
)
def test_zip_and_tar_agree_on_any_names(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    """Either both archives are refused for the same names, or both give exactly what was packed."""
    yard = tmp_path_factory.mktemp("any")
    results: list[object] = []
    for make, name in ((make_zip, "x.zip"), (make_tar, "x.tgz")):
        try:
            results.append(tree(unpack(make(yard / name, list(files.items())), yard / f"out-{name}")))
        except DataError as error:
            results.append(error.problems[0].what)
    assert results[0] == results[1]
    assert isinstance(results[0], str) or results[0] == files


HOSTILE_NAMES = [
    ("../evil", "leads out"),
    ("a/../../evil", "leads out"),
    ("a/..", "leads out"),
    ("/etc/evil", "absolute path"),
    ("C:/evil", "absolute path"),
    ("c:evil", "absolute path"),
    ("a\\..\\evil", "backslash"),
    ("a/\nb", "control character"),
    ("a" * 300, "too long a name"),
    ("/".join(["abcdefgh"] * 150), "too long a name"),
]


@pytest.mark.parametrize(("make", "kind"), [(make_zip, "x.zip"), (make_tar, "x.tar.gz")])
@pytest.mark.parametrize(("name", "says"), HOSTILE_NAMES)
def test_names_that_lead_elsewhere(make: Callable[..., Path], kind: str, name: str, says: str, yard: Path) -> None:
    archive = make(yard / kind, [("fine.txt", b"1"), (name, b"evil")])
    refused(archive, yard, says, name if len(name) <= 120 else name[:117] + "...")


@pytest.mark.parametrize(("make", "kind"), [(make_zip, "x.zip"), (make_tar, "x.tar.gz")])
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a.txt", "a.txt"], "twice"),
        (["a.txt", "./a.txt"], "twice"),
        (["set/A.txt", "set/a.TXT"], "twice"),
        (["caf\u00e9", "cafe\u0301"], "twice"),
        (["a/b", "a"], "twice"),
        (["a", "a/b"], "below a file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_meet(make: Callable[..., Path], kind: str, names: list[str], says: str, yard: Path) -> None:
    refused(make(yard / kind, [(name, b"x") for name in names]), yard, says, names[1])


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "named pipe"),
    ],
)
def test_tar_holds_plain_files_only(kind: bytes, says: str, yard: Path) -> None:
    archive = make_tar(yard / "x.tgz", [("a", b"1")], [special("link", kind, "/etc/passwd")])
    refused(archive, yard, says, "link")


def test_a_link_cannot_be_written_through(yard: Path) -> None:
    with tarfile.open(yard / "x.tgz", "w:gz") as archive:
        archive.addfile(special("door", tarfile.SYMTYPE, str(yard.parent)))
        info = tarfile.TarInfo("door/evil")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    refused(yard / "x.tgz", yard, "symbolic link", "door")


@pytest.mark.parametrize(
    ("mode", "says"), [(stat.S_IFLNK, "symbolic link"), (stat.S_IFCHR, "device"), (stat.S_IFIFO, "named pipe")]
)
def test_zip_holds_plain_files_only(mode: int, says: str, yard: Path) -> None:
    with zipfile.ZipFile(yard / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(yard / "x.zip", yard, says, "link")


def test_bombs_by_ratio(yard: Path) -> None:
    zeros = bytes(40 << 20)
    with quiet():
        refused(make_zip(yard / "x.zip", [("a", b"1"), ("zeros", zeros)]), yard, "200 times its own size", "zeros")
        refused(make_tar(yard / "x.tgz", [("a", b"1"), ("zeros", zeros)]), yard, "200 times its own size", "zeros")
    with gzip.open(yard / "zeros.gz", "wb") as file:
        file.write(zeros)
    refused(yard / "zeros.gz", yard, "200 times its own size", "zeros")


def test_a_bomb_that_lies_about_its_size(yard: Path) -> None:
    """The directory says 10 bytes: what comes out is cut there, does not match its checksum, and is refused."""
    archive = make_zip(yard / "x.zip", [("zeros", bytes(1 << 20))])
    data = bytearray(archive.read_bytes())
    for at in (data.find(b"PK\x01\x02") + 24, data.find(b"PK\x03\x04") + 22):
        struct.pack_into("<I", data, at, 10)
    archive.write_bytes(data)
    refused(archive, yard, "damaged", "zeros")


def test_bounds_on_size_and_number(yard: Path) -> None:
    items = [(f"file{i}", b"x" * 100) for i in range(20)]
    for make, name in ((make_zip, "x.zip"), (make_tar, "x.tgz")):
        archive = make(yard / name, items)
        refused(archive, yard, "10 allowed", "file10", Limits(entries=10))
        refused(archive, yard, "beyond 1,500 bytes", None, Limits(size=1500))
        assert len(tree(unpack(archive, yard / f"out-{name}", limits=Limits(entries=20, size=1 << 20)))) == 20
    with gzip.open(yard / "x.csv.gz", "wb") as file:
        file.write(b"x" * 5000)
    refused(yard / "x.csv.gz", yard, "beyond 4,999 bytes", "x.csv", Limits(size=4999))


def test_entries_that_share_their_bytes(yard: Path) -> None:
    """A zip whose directory names the same stretch of the file again and again."""
    archive = make_zip(yard / "x.zip", [("first", b"x" * 1000), ("again", b"x" * 1000)])
    data = bytearray(archive.read_bytes())
    second = data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 1)
    struct.pack_into("<I", data, second + 42, 0)
    archive.write_bytes(data)
    refused(archive, yard, "shares its bytes with 'first'", "again")


def test_a_directory_too_large_to_read(yard: Path) -> None:
    archive = make_zip(yard / "x.zip", [(f"{i:0200}", b"") for i in range(200)])
    refused(archive, yard, "has a directory of", "x.zip", Limits(entries=10))


def test_a_header_that_would_fill_memory(yard: Path) -> None:
    """A tar whose long name is 30 MB of one letter, a few KB when packed."""
    with tarfile.open(yard / "x.tgz", "w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("fine"))
        archive.addfile(tarfile.TarInfo("a" * (30 << 20)))
    refused(yard / "x.tgz", yard, "bytes of headers", "fine")


def test_encrypted_or_oddly_packed(yard: Path) -> None:
    archive = make_zip(yard / "x.zip", [("secret", b"x" * 100)])
    data = bytearray(archive.read_bytes())
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.find(mark) + at] |= 1
    archive.write_bytes(data)
    refused(archive, yard, "is encrypted", "secret")
    refused(make_zip(yard / "y.zip", [("odd", b"x")], method=zipfile.ZIP_LZMA), yard, "not read here", "odd")


@pytest.mark.parametrize(("make", "name"), [(make_zip, "x.zip"), (make_tar, "x.tgz")])
def test_damage_anywhere_is_found(make: Callable[..., Path], name: str, yard: Path) -> None:
    whole = make(yard / name, [("a", bytes(range(256)) * 40), ("b", b"2" * 3000)]).read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 9):
        (yard / name).write_bytes(whole[:cut])
        refused(yard / name, yard, "damaged")
    (yard / name).write_bytes(whole[:60] + b"\xff\x00\xff" + whole[63:])
    refused(yard / name, yard, "damaged")


def test_truncated_gzip_is_found(yard: Path) -> None:
    with gzip.open(yard / "x.csv.gz", "wb") as file:
        file.write(b"1,2\n" * 5000)
    (yard / "x.csv.gz").write_bytes((yard / "x.csv.gz").read_bytes()[:-12])
    refused(yard / "x.csv.gz", yard, "damaged", "x.csv")


def test_other_kinds_are_told_by_their_first_bytes(yard: Path) -> None:
    (yard / "x.zip").write_bytes(b"<html>not found</html>")
    refused(yard / "x.zip", yard, "is no zip, tar.gz or gz file")
    (yard / "empty.gz").write_bytes(b"")
    refused(yard / "empty.gz", yard, "is no zip, tar.gz or gz file")


def test_an_older_folder_stays_until_the_new_one_is_whole(yard: Path) -> None:
    unpack(make_zip(yard / "x.zip", [("old", b"old")]), yard / "out")
    with pytest.raises(DataError):
        unpack(make_zip(yard / "x.zip", [("new", b"new"), ("../evil", b"")]), yard / "out")
    assert tree(yard / "out") == {"old": b"old"}
    unpack(make_zip(yard / "x.zip", [("new", b"new")]), yard / "out")
    assert tree(yard / "out") == {"new": b"new"}


def test_is_archive_goes_by_name() -> None:
    assert (
        module.is_archive(Path("a.zip")) and module.is_archive(Path("a.tar.gz")) and module.is_archive(Path("a.csv.GZ"))
    )
    assert not module.is_archive(Path("train.txt"))
