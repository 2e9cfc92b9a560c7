"""A pipeline drawn: as Mermaid text, and as an SVG that needs nothing to be shown.

Everything a spec says is text from outside and is escaped: it can end up as a label, never as markup.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from tastemaker.compose import spec as specs
from tastemaker.compose.spec import PipelineSpec

LONGEST = 44  # characters of a line; what is longer ends in an ellipsis
CHARACTER, LINE, PADDING, GAP, DROP = 6.6, 17, 14, 22, 34  # pixels
SAFE = frozenset(" .,:+*/=_()-%")


@dataclass(frozen=True)
class Node:
    """One box: what it is, and a line or more of detail."""

    kind: str
    title: str
    details: tuple[str, ...] = ()


def rows(spec: PipelineSpec) -> list[list[Node]]:
    """The boxes from top to bottom; those of a row work side by side."""
    found = [[Node("request", "request", ("user, history, candidates",))]]
    found.append([_retriever(one) for one in spec.retrieve])
    found.append([Node("blend", *_blend(spec))])
    if spec.filter:
        found.append([Node("filter", "filter", tuple(_filter(one) for one in spec.filter))])
    if spec.score is not None:
        found.append([Node("score", f"score by {spec.score.system}", (f"weight {spec.score.weight:g}",))])
    found += [[Node("rerank", *_step(step))] for step in spec.rerank]
    if isinstance(spec.explain, specs.Because):
        by = spec.explain.column or f"vectors of {spec.explain.vectors}"
        found.append([Node("explain", "explain", (f"an item of the history, alike by {by}",))])
    elif spec.explain is not None:
        found.append([Node("explain", f"explain by {spec.explain.system}")])
    return [*found, [Node("list", "list")]]


def diagram(spec: PipelineSpec) -> str:
    """The pipeline as a Mermaid flow chart."""
    lines = ["flowchart TD"]
    before: list[str] = []
    for n, row in enumerate(rows(spec)):
        names = [f"n{n}_{at}" for at in range(len(row))]
        for name, node in zip(names, row, strict=True):
            label = "<br/>".join(_mermaid(text) for text in (node.title, *node.details))
            ends = ('(["', '"])') if node.kind in ("request", "list") else ('["', '"]')
            lines.append(f"  {name}{ends[0]}{label}{ends[1]}")
        lines += [f"  {above} --> {name}" for above in before for name in names]
        before = names
    return "\n".join(lines) + "\n"


def svg(spec: PipelineSpec) -> str:
    """The pipeline as an SVG document, with a title and a description for those who do not see it."""
    drawn = rows(spec)
    widths = [[_width(node) for node in row] for row in drawn]
    full = max(sum(row) + GAP * (len(row) - 1) for row in widths) + 2 * PADDING
    title, mark = _text(spec.title or spec.name), f"p{spec.fingerprint[:8]}"  # a page may hold several pipelines
    parts: list[str] = []
    top = float(PADDING)
    above: list[tuple[float, float]] = []  # where lines leave the boxes of the row before
    for row, sizes in zip(drawn, widths, strict=True):
        left = (full - sum(sizes) - GAP * (len(sizes) - 1)) / 2
        height = max(_height(node) for node in row)
        below = []
        for node, width in zip(row, sizes, strict=True):
            middle = left + width / 2
            parts += [_line(x, y, middle, top, mark) for x, y in above]
            parts.append(_box(node, left, top, width, height))
            below.append((middle, top + height))
            left += width + GAP
        above, top = below, top + height + DROP
    high = top - DROP + PADDING
    said = "; then ".join(" and ".join(_text(": ".join((n.title, *n.details))) for n in row) for row in drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full:.0f} {high:.0f}" width="{full:.0f}" '
        f'height="{high:.0f}" role="img" aria-labelledby="{mark}-title {mark}-desc" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<title id="{mark}-title">Pipeline {title}</title>\n<desc id="{mark}-desc">{said}</desc>\n'
        f'<defs><marker id="{mark}-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>\n' + "\n".join(parts) + "\n</svg>\n"
    )


# -- what stages say of themselves


def _retriever(one: specs.Retrieve) -> Node:
    details = [f"{one.k} items, weight {one.weight:g}"]
    return Node("retrieve", one.system, (*details, *(() if one.where is None else (f"where {one.where}",))))


def _blend(spec: PipelineSpec) -> tuple[str, tuple[str, ...]]:
    keeps = f"the best {spec.pool}"
    match spec.blend:
        case specs.RRF():
            return "reciprocal rank fusion", (f"constant {spec.blend.constant:g}", keeps)
        case specs.ScaledScores():
            return "sum of scores", (f"scaled by {spec.blend.scale}", keeps)
        case specs.Interleave():
            return "taking turns", (keeps,)
    columns = ", ".join(spec.blend.columns)
    return "learned ranker", (f"ranks, scores{', ' if columns else ''}{columns}", keeps)


def _filter(one: Any) -> str:
    match one:
        case specs.Where():
            return f"where {one.where}"
        case specs.Stock():
            return f"{one.column} in stock"
    return "not seen before"


def _step(step: Any) -> tuple[str, tuple[str, ...]]:
    match step:
        case specs.MMR():
            by = step.column or f"vectors of {step.vectors}"
            return "variety (MMR)", (f"by {by}, weight {step.weight:g}", f"first {step.first}")
        case specs.Calibrated():
            return "calibrated", (f"by {step.column}, weight {step.weight:g}", f"first {step.first}")
        case specs.Fair():
            shares = ", ".join(f"{name} {share:.0%}" for name, share in step.shares.items())
            return "fair exposure", (f"{step.column}: {shares}", f"first {step.first}")
        case specs.Boost():
            return "boost" if step.factor >= 1 else "bury", (f"where {step.where}", f"factor {step.factor:g}")
        case specs.Pin():
            return "pin", (f"{', '.join(map(str, step.items))} at place {step.place}",)
    return "cap", (f"at most {step.most} of one {step.column} in the first {step.first}",)


# -- drawing


def _cut(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def _text(text: str) -> str:
    return escape(_cut(text), quote=True)


def _mermaid(text: str) -> str:
    """A label in quotes: what Mermaid might take for markup is written by its number."""
    return "".join(c if c.isalnum() or c in SAFE else f"#{ord(c)};" for c in _cut(text))


def _width(node: Node) -> float:
    return max(70.0, max(len(_cut(line)) for line in (node.title, *node.details)) * CHARACTER + 2 * PADDING)


def _height(node: Node) -> float:
    return LINE * (1 + len(node.details)) + PADDING


FILLS = {"request": "#e2e8f0", "list": "#e2e8f0", "retrieve": "#dbeafe", "blend": "#ede9fe", "filter": "#fee2e2",
         "score": "#dcfce7", "rerank": "#fef3c7", "explain": "#fce7f3"}  # fmt: skip


def _box(node: Node, left: float, top: float, width: float, height: float) -> str:
    middle = left + width / 2
    lines = [
        f'<text x="{middle:.1f}" y="{top + LINE * (n + 1):.1f}" text-anchor="middle" fill="#0f172a" '
        f'font-weight="{400 if n else 600}">{_text(line)}</text>'
        for n, line in enumerate((node.title, *node.details))
    ]
    frame = (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="7" '
        f'fill="{FILLS[node.kind]}" stroke="#64748b"/>'
    )
    return "<g>" + frame + "".join(lines) + "</g>"


def _line(x: float, y: float, to_x: float, to_y: float, mark: str) -> str:
    bend = (y + to_y) / 2
    return (
        f'<path d="M{x:.1f} {y:.1f}C{x:.1f} {bend:.1f} {to_x:.1f} {bend:.1f} {to_x:.1f} {to_y:.1f}" fill="none" '
        f'stroke="#64748b" marker-end="url(#{mark}-arrow)"/>'
    )
