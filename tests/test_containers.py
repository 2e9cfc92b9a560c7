"""The container files say what they must: nobody runs as root, nothing floats, no secret is written down."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(r"^[\w./-]+:\d[\w.-]*(@sha256:[0-9a-f]{64})?$")


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of the Dockerfile, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    found = [line.split(None, 1) for line in whole.splitlines()]
    return [(word, rest) for word, rest in found]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="a reader of YAML comes with the development extra")
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    found = instructions()
    images = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert len(images) == 2 and all(PINNED.match(image) for image in images), images
    assert len(set(images)) == 1, "what is built on one system runs on the same"
    users = [rest for word, rest in found if word == "USER"]
    assert users and users[-1] not in ("root", "0")
    last = [word for word, _ in found[max(n for n, (word, _) in enumerate(found) if word == "FROM") :]]
    assert {"HEALTHCHECK", "USER", "EXPOSE", "ENTRYPOINT", "VOLUME"} <= set(last)
    assert last.index("USER") > last.index("COPY"), "what is copied belongs to root, so the server cannot change itself"
    assert not [rest for word, rest in found if word == "ADD"]
    assert not [rest for word, rest in found if word == "RUN" and "apt-get install" in rest and "rm -rf" not in rest]


def test_no_secret_is_in_the_image() -> None:
    for word, rest in instructions():
        if word in ("ENV", "ARG"):
            assert not re.search(r"(?i)password|secret|token|api_?key", rest), rest
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*" and "!.env" not in ignored, "only what is named goes in"


def test_what_is_copied_is_there_and_is_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for name in rest.split()[:-1]:
                assert (ROOT / name).exists() and f"!{name}\n" in ignored, name


def test_the_health_check_asks_a_route_that_is_there() -> None:
    check = next(rest for word, rest in instructions() if word == "HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 3 :])
    compile(command[2], "healthcheck", "exec")
    assert "/health/ready" in command[2]
    assert '"/health/ready"' in (ROOT / "src/tastemaker/serve/app.py").read_text()


def test_every_service_is_watched_restarted_and_pinned(compose: dict[str, Any]) -> None:
    volumes = set(compose["volumes"])
    for name, service in compose["services"].items():
        assert service["restart"] == "unless-stopped" and service["healthcheck"]["test"], name
        assert "build" in service or PINNED.match(service["image"]), name
        assert {mount.split(":")[0] for mount in service.get("volumes", ())} <= volumes
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} listens to the world"
        for other in service.get("depends_on", {}).values():
            assert other["condition"] == "service_healthy"
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key or "URL" in key:
                assert ":?" in value, f"{key} of {name} has a default"


def test_the_server_is_told_what_it_reads(compose: dict[str, Any]) -> None:
    from tastemaker.serve.settings import PREFIX, Settings

    for name in compose["services"]["server"]["environment"]:
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, name
    wanted = set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()))
    given = {line.split("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line}
    assert wanted == given
