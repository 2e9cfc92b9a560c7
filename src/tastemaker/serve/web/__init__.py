"""The web app: plain files, read once, served as they are.

Every file's address holds a hash of all of them, so a browser may keep them for good and still never mixes two
versions; the page itself is asked for anew each time and answers 304 where nothing changed. An address with the hash
of another version, as an open page of yesterday has it, gets today's file, and is not kept.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request
from starlette.responses import Response

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE, ICON = "index.html", "favicon.svg"
VERSION = "{version}"  # stands in the page for the hash of all files
DIGITS = 12
KEPT, ASKED = "public, max-age=31536000, immutable", "no-cache"


@dataclass(frozen=True)
class File:
    """A file in memory."""

    content: bytes
    media_type: str

    @cached_property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:20]}"'

    @cached_property
    def packed(self) -> bytes:
        return gzip.compress(self.content, 9, mtime=0)

    def answer(self, request: Request, caching: str) -> Response:
        """The file, or that the browser's own is still right."""
        headers = {"ETag": self.tag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
        if self.tag in request.headers.get("if-none-match", "").replace("W/", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(self.packed, headers=headers, media_type=self.media_type)
        return Response(self.content, headers=headers, media_type=self.media_type)


def read_files() -> tuple[str, dict[str, File]]:
    """The version, and all files by their path; the page knows the version and the modules it will need."""
    found = {path: File(one.read_bytes(), TYPES[path[path.rindex(".") :]]) for path, one in _walk(files(__package__))}
    whole = hashlib.sha256()
    for path, one in sorted(found.items()):
        whole.update(f"{path}\0{len(one.content)}\0".encode() + one.content)
    version = whole.hexdigest()[:DIGITS]
    modules = "".join(
        f'<link rel="modulepreload" href="/static/{VERSION}/{path}">' for path in sorted(found) if path.endswith(".js")
    )
    page = found[PAGE].content.decode().replace("{modules}", modules).replace(VERSION, version)
    return version, found | {PAGE: File(page.encode(), TYPES[".html"])}


def _walk(folder: Traversable, under: str = "") -> list[tuple[str, Traversable]]:
    found = []
    for one in folder.iterdir():
        if one.is_dir() and not one.name.startswith("_"):
            found += _walk(one, f"{under}{one.name}/")
        elif any(one.name.endswith(end) for end in TYPES):
            found.append((under + one.name, one))
    return found


def mount(api: FastAPI) -> None:
    """Serve the page at `/` and its files under `/static/`."""
    version, kept = read_files()

    async def page(request: Request) -> Response:
        return kept[PAGE].answer(request, ASKED)

    async def icon(request: Request) -> Response:
        return kept[ICON].answer(request, ASKED)

    async def static(request: Request) -> Response:
        first, _, rest = request.path_params["path"].partition("/")
        found = kept.get(rest)
        if found is None or rest == PAGE or len(first) != DIGITS:
            return Response(status_code=404)
        return found.answer(request, KEPT if first == version else ASKED)

    for path, answer in (("/", page), ("/favicon.ico", icon), ("/static/{path:path}", static)):
        api.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
