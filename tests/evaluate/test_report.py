"""Reports and comparisons: what is stored comes back, what is shown is true, and nothing untrusted is executed."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tastemaker.evaluate import Comparison, Figure, Report, compare, evaluate, paired_t
from tastemaker.evaluate.plots import Axis, Mark, curves, scatter, shares, whiskers
from tastemaker.evaluate.report import Stored
from tastemaker.types import DataError, NotFound, Slates, Split, UsageError

HOSTILE = "</title><script>alert('x')</script><img src=//evil.example onerror=alert(1)>\" & [bold]b[/bold]"


@pytest.fixture(scope="module")
def report(parts: Split, vectors: Any) -> Report:
    return evaluate(vectors, parts, ks=(5, 10), name="plain", slices=["history", "popularity", "users.land"])


@pytest.fixture(scope="module")
def good(parts: Split) -> Report:
    """Lists that hold the first target of each case and then popular items."""
    cases = parts.cases()
    lists = np.tile(np.arange(10, dtype=np.int32), (len(cases), 1))
    lists[:, 0] = cases.targets.padded(1)[:, 0]
    lists[:, 1:] = np.where(lists[:, 1:] == lists[:, :1], 59, lists[:, 1:])
    return evaluate(Slates(lists, np.zeros(lists.shape)), parts, ks=(5, 10), name="good", exclude_seen=True)


@pytest.fixture(scope="module")
def seeds(parts: Split, vectors: Any) -> list[Report]:
    """The same system with three seeds."""
    found = []
    for seed in range(3):
        one = evaluate(replace(vectors, seed=10 + seed), parts, ks=(5, 10), name="drawn")
        found.append(replace(one, system={**one.system, "seed": seed}))
    return found


def text_of(renderable: Any, width: int = 140) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


# -- on disk


@pytest.mark.parametrize("name", ["r.parquet", "folder"])
def test_round_trip(report: Report, tmp_path: Path, name: str) -> None:
    back = Report.load(report.save(tmp_path / name))
    assert back.values() == report.values() and back.intervals() == report.intervals()
    assert back.to_json() == report.to_json()
    assert back.slices.equals(report.slices) and back.requests.equals(report.requests)
    for metric, values in report.rows.items():
        np.testing.assert_array_equal(back.rows[metric], values)
    assert text_of(back.table()) == text_of(report.table())


def test_json_alone_has_the_figures(report: Report, tmp_path: Path) -> None:
    path = report.save(tmp_path / "r.json")
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert content["format"] == 1 and content["figures"]["ndcg@5"]["mean"] == report["ndcg@5"]
    Stored.model_validate(content)
    assert Stored.model_json_schema()["required"]
    back = Report.load(path)
    assert back.values() == report.values() and not back.rows
    assert text_of(back.table()) == text_of(report.table())
    compare([back]).save(tmp_path / "one.html")
    with pytest.raises(UsageError, match="values by request"):
        compare([back, replace(report, system={**report.system, "label": "b"})])
    with pytest.raises(UsageError, match="no values by request"):
        back.save(tmp_path / "x.parquet")


def test_undefined_figures_are_null(parts: Split, tmp_path: Path) -> None:
    cases = parts.cases()
    empty = Slates(np.full((len(cases), 3), -1), np.full((len(cases), 3), -np.inf))
    report = evaluate(empty, parts, ks=(3,))
    assert report["recall@3"] == 0.0 and math.isnan(report["popreo@3"]) and math.isnan(report["arp@3"])
    content = json.loads(report.save(tmp_path / "r.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert content["figures"]["popreo@3"]["mean"] is None
    assert math.isnan(Report.load(tmp_path / "r.json")["popreo@3"])
    assert " - " in text_of(report.table()) and "nan" not in text_of(report.table())
    report.save(tmp_path / "r.html")


def test_what_is_not_a_report_is_refused(report: Report, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Report.load(tmp_path / "none.parquet")
    with pytest.raises(UsageError, match="saved as"):
        report.save(tmp_path / "r.pickle")
    newer = {**report.to_json(), "format": 2, "tastemaker": "9.9"}
    (tmp_path / "newer.json").write_text(json.dumps(newer))
    with pytest.raises(DataError, match="format 2"):
        Report.load(tmp_path / "newer.json")
    for content in ("", "[1]", "{}", json.dumps({**report.to_json(), "figures": 3}), "nul"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(DataError, match="is not a report"):
            Report.load(tmp_path / "bad.json")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    for name in ("other", "text"):
        with pytest.raises(DataError, match="is not a report"):
            Report.load(tmp_path / f"{name}.parquet")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="left alone"):
        report.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


# -- comparisons


def test_who_leads_and_who_is_tied(report: Report, good: Report) -> None:
    twin = replace(report, system={**report.system, "label": "twin"}, rows=dict(report.rows))
    comparison = compare([report, twin, good])
    assert comparison.best == "good" and comparison.primary == "ndcg@5"
    assert comparison.tied("ndcg@5") == []
    against = comparison.against("ndcg@5", "good")
    expected = report.rows["ndcg@5"].astype(float) - good.rows["ndcg@5"]
    assert against["plain"]["difference"] == pytest.approx(expected.mean())
    assert against["plain"]["low"] < expected.mean() < against["plain"]["high"] < 0
    pair = compare([report, twin])
    assert pair.tied("ndcg@5") in (["twin"], ["plain"])
    row = pair.tests.row(0, named=True)
    assert row["difference"] == 0.0 and row["p_permutation"] == 1.0 and row["p_t"] == 1.0
    for metric in ("coverage@5", "popreo@5"):
        leader = comparison.leader(metric)
        assert leader is not None
        choose = max if metric == "coverage@5" else min
        assert leader.figures[metric].mean == choose(e.figures[metric].mean for e in comparison.entries)
        assert comparison.tied(metric) == []  # not tested, so nothing is said
    assert comparison.leader("arp@5") is None


def test_p_values_are_of_the_stated_tests(report: Report, good: Report, seeds: list[Report]) -> None:
    several = [report, good, *seeds]
    holm, bh, none = (compare(several, tested=["recall@10"], test="t", correction=c) for c in ("holm", "bh", "none"))  # type: ignore[arg-type]
    drawn = np.mean([one.rows["recall@10"] for one in seeds], axis=0)
    row = none.tests.filter((pl.col("left") == "good") & (pl.col("right") == "drawn")).row(0, named=True)
    assert row["p"] == row["p_t"] == pytest.approx(paired_t(good.rows["recall@10"].astype(float) - drawn)[0])
    slack = 1 + 1e-12
    assert (holm.tests["p"] * slack >= bh.tests["p"]).all() and (bh.tests["p"] * slack >= none.tests["p"]).all()
    assert "Benjamini-Hochberg correction over 3 pairs" in bh.how() and "paired t test" in bh.how()
    permuted = compare(several, tested=["recall@10"], permutations=4000)
    np.testing.assert_allclose(permuted.tests["p_permutation"], permuted.tests["p_t"], atol=0.03)


def test_seeds_become_one_entry(report: Report, seeds: list[Report]) -> None:
    comparison = compare([report, *seeds], primary="recall@10")
    entry = next(e for e in comparison.entries if e.label == "drawn")
    means = [one["recall@10"] for one in seeds]
    assert entry.seeds == [0, 1, 2]
    assert entry.figures["recall@10"].mean == pytest.approx(np.mean(means), abs=1e-6)
    assert entry.seed_spread("recall@10") == pytest.approx(np.std(means, ddof=1))
    assert entry.figures["coverage@10"].mean == pytest.approx(np.mean([one["coverage@10"] for one in seeds]))
    alone = seeds[0].figures["recall@10"]
    averaged = entry.figures["recall@10"]
    assert averaged.half is not None and alone.half is not None and averaged.half < alone.half
    shown = text_of(comparison.table(["recall@10"]))
    assert re.search(r"drawn +0\.\d{4} ±0\.\d{4} s0\.\d{4}", shown) and "standard deviation over up to 3 seeds" in shown
    assert any("different numbers of seeds" in warning for warning in comparison.warnings)
    with pytest.raises(UsageError, match="same settings and seed"):
        compare([report, report])


def test_settings_tell_equal_labels_apart(report: Report) -> None:
    others = [replace(report, system={**report.system, "config": {"reg": r, "k": 5}}) for r in (1.0, 2.0)]
    assert [entry.label for entry in compare(others).entries] == ["plain (reg=1.0)", "plain (reg=2.0)"]


def test_only_the_same_cases_compare(report: Report, parts: Split, vectors: Any) -> None:
    fewer = evaluate(vectors, parts, cases=parts.cases().take(slice(0, 30)), ks=(5,), name="fewer")
    sampled = evaluate(vectors, parts, candidates=10, ks=(5,), name="sampled")
    seen = evaluate(vectors, parts, exclude_seen=False, ks=(5,), name="seen")
    for other, what in ((fewer, "cases"), (sampled, "candidates"), (seen, "treatment of seen items")):
        with pytest.raises(UsageError, match=f"different {what}"):
            compare([report, other])
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([])
    with pytest.raises(NotFound, match="ndcg@5"):
        compare([report], primary="ndcg@6")


def test_tuning_budgets_are_stated(report: Report, good: Report) -> None:
    tuned = replace(report, system={**report.system, "tuning": {"trials": 1200, "method": "TPE"}})
    comparison = compare([tuned, good])
    assert any("not tuned alike" in w and "1,200 trials, method TPE: plain" in w for w in comparison.warnings)
    assert "1,200 trials" in text_of(comparison.table())
    assert not any("tuned" in warning for warning in compare([report, good]).warnings)


def test_comparison_on_disk(report: Report, good: Report, tmp_path: Path) -> None:
    comparison = compare([report, good], permutations=500)
    content = json.loads(comparison.save(tmp_path / "c.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert content["best"] == "good" and {s["label"] for s in content["systems"]} == {"plain", "good"}
    best = [f for f in content["figures"] if f["metric"] == "ndcg@5" and f["best"]]
    assert [f["system"] for f in best] == ["good"]
    folder = comparison.save(tmp_path / "all")
    assert (folder / "comparison.html").is_file()
    again = compare([Report.load(path) for path in sorted((folder / "reports").iterdir())], permutations=500)
    assert again.to_json() == comparison.to_json()
    with pytest.raises(UsageError, match="saved as"):
        comparison.save(tmp_path / "c.docx")


# -- on the terminal


@pytest.mark.parametrize("width", [40, 80, 120, 220])
def test_the_table_fits_and_marks(report: Report, good: Report, seeds: list[Report], width: int) -> None:
    comparison = compare([report, good, *seeds], permutations=200)
    shown = text_of(comparison, width)
    assert max(map(len, shown.splitlines())) <= width
    row = next(line for line in shown.splitlines() if line.startswith("good"))
    assert "*" in row and "±" in row
    assert "NDCG@5" in shown and ("Coverage@5" in shown) == (width == 220 or "Coverage" in shown)
    with pytest.raises(NotFound):
        comparison.table(["speed"])


def test_the_report_says_how_it_was_measured(report: Report, parts: Split, vectors: Any) -> None:
    shown = text_of(report)
    assert "plain on ring, last three" in shown and "warning: The clock <is> off." in shown
    assert f"{report.n:,} requests" in shown and "seen items excluded" in shown and "full catalogue" in shown
    assert f"{report['ndcg@10']:.4f}" in shown
    sampled = text_of(evaluate(vectors, parts, candidates=10, ks=(5,)))
    assert "SAMPLED CANDIDATES" in sampled
    marked = replace(report, system={**report.system, "label": HOSTILE})
    assert "[bold]b[/bold]" in text_of(marked, 300)  # markup in a name is text


# -- the page


class Outline(HTMLParser):
    """Tags that are open at each point, texts, attributes."""

    VOID = ("meta", "circle", "rect", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def outline(path: Path) -> Outline:
    parsed = Outline()
    parsed.feed(path.read_text(encoding="utf-8"))
    parsed.close()
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def hostile(report: Report, good: Report, seeds: list[Report]) -> Comparison:
    """Every text that comes from outside is an attack."""
    slices = report.slices.with_columns(value=pl.lit(HOSTILE) + pl.col("value"))
    split = {**report.split, "name": HOSTILE, "data": {"name": HOSTILE, "notes": {HOSTILE: HOSTILE}}}
    system = {"label": HOSTILE, "name": HOSTILE, "config": {HOSTILE: HOSTILE}, "tuning": {HOSTILE: HOSTILE}}
    bad = replace(report, system=system, split=split, slices=slices, warnings=(HOSTILE,))
    return compare([bad, good, *seeds], permutations=200)


def test_untrusted_text_stays_text(hostile: Comparison, tmp_path: Path) -> None:
    page = outline(hostile.save(tmp_path / "h.html"))
    assert [tag for tag, _ in page.tags].count("script") == 1  # the one of the page itself
    assert not {"img", "iframe", "link", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert any("<script>alert('x')</script>" in words for words in page.words)


def test_the_page_needs_no_network(hostile: Comparison, tmp_path: Path) -> None:
    page = outline(hostile.save(tmp_path / "h.html"))
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "xlink:href", "action", "data"} & set(attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    style = "".join(page.words)
    assert "@import" not in style and "url(" not in style
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "unsafe-eval" not in policy


def test_the_page_is_for_everyone(report: Report, good: Report, seeds: list[Report], tmp_path: Path) -> None:
    page = outline(compare([report, good, *seeds], permutations=200).save(tmp_path / "c.html"))
    headings = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert headings[0] == 1 and headings.count(1) == 1 and max(np.diff(headings)) <= 1
    assert page.tags[0] == ("html", {"lang": "en"})
    assert any(a.get("name") == "viewport" for _, a in page.tags)
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in page.tags if tag == "svg")
    scrolled = [a for _, a in page.tags if a.get("class") == "scroll"]
    assert scrolled and all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolled)
    assert any("prefers-color-scheme:dark" in words for words in page.words)
    text = " ".join(page.words)
    for needed in ("Read this first", "Leaderboard", "By cut-off", "What accuracy costs", "Slices", "Where this comes"):
        assert needed in text
    assert text.index("Read this first") < text.index("Leaderboard") < text.index("Where this comes from")
    assert f"{good['ndcg@5']:.4f}" in text


def test_a_page_of_one_system(report: Report, tmp_path: Path) -> None:
    text = " ".join(outline(report.save(tmp_path / "r.html")).words)
    assert "plain on ring, last three" in text and "Leaderboard" not in text and "cannot be told" not in text
    assert "by events in the history" in text and "by users.land" in text


# -- plots


def test_axes_hold_their_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = (rng.normal(size=4) * 10.0 ** rng.integers(-6, 7)).tolist()
        axis = Axis.over(values, 10.0, 90.0, zero=bool(rng.integers(2)))
        assert all(10 - 1e-6 <= axis(v) <= 90 + 1e-6 for v in values)
        assert 2 <= len(axis.ticks) <= 8 and len(set(axis.texts())) == len(axis.ticks)
    flat = Axis.over([0.0, 0.0, float("nan"), None], 0, 1)
    assert math.isfinite(flat(0.0))


def test_plots_of_nothing_and_of_much() -> None:
    unknown = Mark(0, math.nan)
    assert "nan" not in whiskers(["a"], [[unknown]], "x") + curves(["@5"], [[unknown]], "x")
    assert "nan" not in scatter([unknown], ["a"], "x", "y")
    assert 'width="0' not in shares(["a"], [[0.0, 1.0, 0.0]], ["n", "m", "o"], "x")
    crowd = [Mark(s, 0.5 + s * 1e-6, y=0.5) for s in range(60)]
    labels = [f"system number {s}" for s in range(60)]
    plot = scatter(crowd, labels, "x", "y")
    assert plot.count("<circle") == 15 and plot.count('class="name"') < 8  # no label covers another


def test_a_figure_knows_half_its_interval() -> None:
    assert Figure(0.5, 0.4, 0.8, 10).half == pytest.approx(0.2) and Figure(0.5).half is None
