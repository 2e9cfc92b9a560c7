"""The house stands as it was drawn: imports go one way, systems stand alone, files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "src" / "tastemaker"
STOREYS = [
    {"types"},
    {"contracts"},
    {"data", "feeds", "nn", "language", "index", "simulate"},
    {"agents"},
    {"systems"},
    {"evaluate"},
    {"train", "compose", "audit"},
    {"serve", "lab", "testing"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
CORE = {"numpy", "scipy", "numba", "polars", "pyarrow", "pydantic", "safetensors", "rich", "typer", "threadpoolctl"}
SERVER = {"fastapi", "starlette", "uvicorn", "orjson", "prometheus_client", "sqlalchemy", "httpx"}  # within serve only
NEURAL = ("systems", "nn", "train.neural", "train.transforms", "audit.transforms", "compose.ranker")
UPWARD = {("types.dataset", "data")}  # Dataset.read and its short forms: constructors live where reading does
FILES = sorted(ROOT.rglob("*.py"))


def _imports(tree: ast.AST) -> list[tuple[str, bool]]:
    """(module, whether at module level) of every import that runs; those for type checkers are left out."""
    found: list[tuple[str, bool]] = []

    def walk(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "tastemaker":
                found.extend((f"tastemaker.{alias.name}", top) for alias in node.names)
            else:
                found.append((node.module, top))
        inner = top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, inner)

    walk(tree, True)
    return found


def _parsed(path: Path) -> tuple[str, list[tuple[str, bool]]]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return module, _imports(ast.parse(path.read_text(encoding="utf-8")))


def test_every_room_has_its_storey() -> None:
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    module, imports = _parsed(path)
    room = module.split(".")[0]
    if room not in LEVEL:
        return  # the package's own __init__ names homes, and imports nothing
    for name, _ in imports:
        parts = name.split(".")
        if parts[0] != "tastemaker" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        other = parts[1]
        if (module, other) in UPWARD:
            continue
        assert LEVEL[other] <= LEVEL[room], f"{module} imports {name}, which lies above it"
        if other != room and LEVEL[other] == LEVEL[room]:
            assert LEVEL[room] >= LEVEL["train"], f"{module} imports {name}, its neighbour"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_core_packages_at_module_level(path: Path) -> None:
    module, imports = _parsed(path)
    beside = {"torch"} if module.startswith(NEURAL) else set()
    beside |= SERVER if module.startswith("serve.") else set()
    allowed = CORE | {"tastemaker"} | beside | set(sys.stdlib_module_names)
    outside = {name.split(".")[0] for name, top in imports if top} - allowed
    assert not outside, f"{module} imports {sorted(outside)} at module level; see tastemaker.types.optional"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 600, f"{path.name} is {text.count(chr(10))} lines long"
    assert ast.get_docstring(ast.parse(text)), f"{path.name} does not say what it is"


def test_no_system_is_imported_by_name() -> None:
    for path in FILES:
        module, imports = _parsed(path)
        named = [n for n, _ in imports if n.startswith("tastemaker.systems.") and n.count(".") > 2]
        assert not named, f"{module} imports {named}; systems are found by name"


def test_pickle_is_nowhere() -> None:
    for path in FILES:
        module, imports = _parsed(path)
        banned = {"pickle", "cloudpickle", "joblib", "shelve", "marshal", "dill"}
        assert not banned & {name.split(".")[0] for name, _ in imports}, f"{module} imports a pickler"


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=False)


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = _python(
        "import sys, tastemaker, tastemaker.cli.app\n"
        "heavy = {'torch', 'polars', 'numpy', 'scipy', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr


def test_each_system_can_be_removed_without_harm_to_the_others() -> None:
    """Half at a time, by each digit of their numbers: of any two, each is once removed while the other stays."""
    done = _python(
        """
import sys
from tastemaker.contracts import registry
places = dict(registry.SYSTEMS.places)
class Blocker:
    gone = frozenset()
    def find_spec(self, name, path=None, target=None):
        if name in self.gone:
            raise ImportError(f"{name} was removed")
sys.meta_path.insert(0, blocker := Blocker())
for digit in range(len(places).bit_length()):
    for value in (0, 1):
        for name in [m for m in sys.modules if m.startswith("tastemaker.systems.") and m.count(".") > 2]:
            del sys.modules[name]
        removed = [name for number, name in enumerate(places) if number >> digit & 1 == value]
        blocker.gone = frozenset(places[name] for name in removed)
        for name in places:
            if name not in removed:
                assert registry.find(name).name == name
        for name in removed:
            try:
                registry.find(name)
            except ImportError:
                continue
            raise SystemExit(f"{name} was found although it was removed")
"""
    )
    assert done.returncode == 0, done.stderr


def test_contracts_stay_small() -> None:
    files = [path for path in (ROOT / "contracts").glob("*.py") if path.name != "__init__.py"]
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in files)
    assert lines <= 500, f"the contracts have grown to {lines} lines"
