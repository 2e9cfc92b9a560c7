"""A running server that is told of a new bundle: it opens the folder again, and goes back where it is not well with it.

A server warms a bundle, and so has it answer, before it serves it; what is asked here is whether it serves the bundle
that is meant, and whether it is ready. No list is asked for: the server would write it down as shown to somebody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tastemaker.types import NotFound, TastemakerError, optional


@dataclass(frozen=True)
class Server:
    """A server's address, a key that may administer it, and the name under which it serves the bundle.

    name: None: whichever of its systems is the bundle
    timeout: seconds that opening a bundle may take
    """

    url: str
    key: str | None = None
    name: str | None = None
    timeout: float = 300.0

    def find(self, snapshot: str) -> str:
        """The name under which the server serves the bundle with this snapshot.

        Raises:
            NotFound: it does not.
        """
        served = {one["name"]: one["snapshot"] for one in self._ask("GET", "/systems")["systems"]}
        if self.name is not None:
            if self.name not in served:
                raise NotFound(f"{self.url} serves nothing as {self.name!r}", hint=f"it serves {', '.join(served)}")
            return self.name
        for name, theirs in served.items():
            if theirs == snapshot:
                return str(name)
        raise NotFound(
            f"none of the systems at {self.url} is this bundle (snapshot {snapshot})",
            hint="say which one it is to become: --name NAME; " + ", ".join(f"{n} is {s}" for n, s in served.items()),
        )

    def renew(self, name: str, snapshot: str) -> str | None:
        """Have the bundle opened again. Returns None where all is well, else why not, after having it go back."""
        path = f"/systems/{quote(name, safe='')}"
        try:
            before = self._ask("GET", path)["snapshot"]
        except TastemakerError as error:
            return error.message
        try:
            now = self._ask("POST", f"/admin{path}/reload")["snapshot"]
            if now != snapshot:
                raise TastemakerError(
                    f"it opened the snapshot {now} as {name!r}, not {snapshot}: it serves another folder"
                )
            self._ask("GET", "/health/ready")
            return None
        except TastemakerError as error:
            why = error.message
        try:
            if self._ask("GET", path)["snapshot"] != before:
                self._ask("POST", f"/admin{path}/rollback")
        except TastemakerError as error:
            why += f"; and it could not be told to go back: {error.message}"
        return why

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        """Once, never again: a second reload would leave nothing to go back to."""
        optional("httpx", extra="serve", why="talking to a server")
        import httpx

        from tastemaker.serve.client import Client, ServerError

        with Client(self.url, key=self.key, timeout=self.timeout, tries=1) as client:
            try:
                answer = client.http.request(method, path)
            except httpx.TransportError as error:
                raise ServerError(503, {"detail": f"{self.url} cannot be reached: {error}"}) from error
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not answer.is_success or not isinstance(found, dict):
            told = found if isinstance(found, dict) else {"title": answer.reason_phrase, "detail": answer.text[:200]}
            raise ServerError(answer.status_code, told)
        return found
