"""Diagrams: every stage is there, and text from outside stays text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.compose import PipelineSpec, diagram, svg

NS = "{http://www.w3.org/2000/svg}"
SPEC: dict[str, Any] = {
    "name": "home",
    "title": "Front page",
    "retrieve": [{"system": "ials"}, {"system": "itemknn", "where": "year > 1990"}],
    "blend": {"kind": "learned", "columns": ["price"]},
    "filter": [{"kind": "seen"}, {"kind": "stock", "column": "in_stock"}],
    "score": {"system": "sasrec"},
    "rerank": [
        {"kind": "mmr", "column": "genres"},
        {"kind": "mmr", "vectors": "ials"},
        {"kind": "calibrated", "column": "genres"},
        {"kind": "fair", "column": "popularity", "shares": {"tail": 0.3}},
        {"kind": "boost", "where": "price < 5", "factor": 0.5},
        {"kind": "pin", "items": ["a", 7]},
        {"kind": "cap", "column": "maker"},
    ],
    "explain": {"kind": "because", "column": "genres"},
}


def test_every_stage_is_drawn() -> None:
    spec = PipelineSpec.from_json(SPEC)
    chart, drawn = diagram(spec), ET.fromstring(svg(spec))
    texts = [text.text or "" for text in drawn.iter(f"{NS}text")]
    stages = (
        "request, ials, itemknn, learned ranker, filter, score by sasrec, variety (MMR), calibrated, fair exposure, "
    )
    for title in (stages + "bury, pin, cap, explain, list").split(", "):
        assert title in texts and title in chart, title
    assert "where year > 1990" in texts and "where year #62; 1990" in chart
    assert chart.startswith("flowchart TD\n") and chart.count(" --> ") == 2 + 2 + 11
    boxes, lines = list(drawn.iter(f"{NS}rect")), [p for p in drawn.iter(f"{NS}path") if "marker-end" in p.attrib]
    assert len(boxes) == 15 and len(lines) == 15
    width, height = (float(drawn.attrib[side]) for side in ("width", "height"))
    for box in boxes:
        assert float(box.attrib["x"]) >= 0 and float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height


def test_a_screen_reader_is_told() -> None:
    drawn = ET.fromstring(svg(PipelineSpec.from_json(SPEC)))
    title, description = drawn.find(f"{NS}title"), drawn.find(f"{NS}desc")
    assert drawn.attrib["role"] == "img" and title is not None and description is not None
    assert drawn.attrib["aria-labelledby"].split() == [title.attrib["id"], description.attrib["id"]]
    assert title.text == "Pipeline Front page" and "ials" in (description.text or "")


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
@settings(max_examples=80, deadline=None)
def test_text_from_outside_stays_text(title: str, column: str) -> None:
    spec = PipelineSpec.from_json(
        {
            "name": "x",
            "title": title,
            "retrieve": [{"system": "a", "where": column}],
            "rerank": [{"kind": "fair", "column": column, "shares": {title: 0.5}}, {"kind": "pin", "items": [title]}],
        }
    )
    plain = PipelineSpec.from_json(
        {
            "name": "x",
            "title": "t",
            "retrieve": [{"system": "a", "where": "c"}],
            "rerank": [{"kind": "fair", "column": "c", "shares": {"t": 0.5}}, {"kind": "pin", "items": ["t"]}],
        }
    )
    drawn, wanted = ET.fromstring(svg(spec)), ET.fromstring(svg(plain))
    assert [one.tag for one in drawn.iter()] == [one.tag for one in wanted.iter()], "no element more, none less"
    chart = diagram(spec)
    assert chart.count("\n") == diagram(plain).count("\n")
    line = re.compile(r'  (n\d+_\d+ --> n\d+_\d+|n\d+_\d+\(?\["(\w|[ .,:+*/=_()%;#-]|<br/>)*"\]\)?)')
    assert all(line.fullmatch(row) for row in chart.splitlines()[1:]), chart


def test_markup_is_escaped() -> None:
    evil = '"]; click n0 href "javascript:alert(1)" <script>alert(1)</script> `x`'
    spec = PipelineSpec.from_json({"name": "x", "title": evil, "retrieve": [{"system": "a", "where": evil}]})
    for text in (diagram(spec), svg(spec)):
        assert "<script" not in text and 'href "java' not in text
