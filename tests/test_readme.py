"""What the README and CONTRIBUTING say runs."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert block is not None
    examples = doctest.DocTestParser().get_doctest(block.group(1), {}, "README.md", "README.md", 0)
    failed, tried = doctest.DocTestRunner().run(examples)
    assert failed == 0 and tried >= 8


PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if ">>> " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, page.name, 0)
    failed, tried = doctest.DocTestRunner().run(examples)
    assert failed == 0 and tried


def test_the_example_system_of_contributing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from tastemaker.testing import CHECKS, Subject, run_check, subject

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert block is not None
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    exec(block.group(1), module.__dict__)  # our own documentation
    info = module.MySystem.__tastemaker__
    made: Subject = replace(subject("popularity"), info=info)
    for name in CHECKS:
        run_check(name, made)


def test_generated_pages_are_current() -> None:
    from tastemaker.lab.pages import pages

    stale = [str(p.relative_to(ROOT)) for p, text in pages(ROOT).items() if not p.is_file() or p.read_text() != text]
    assert not stale, f"run `tastemaker recipe table --write`: {stale}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
