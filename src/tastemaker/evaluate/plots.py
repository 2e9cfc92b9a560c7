"""Small plots as SVG text that inherits the page's colours, so that it follows light and dark and needs no script.

Every plot is W units wide; the page scales it to the screen. Series are told apart by colour and by shape:
series s has the class "c<s>" and the s-th shape. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

W = 380.0
ROW = 24.0
SHAPES = 4
COLOURS = 8
LETTER = 6.4  # width of a letter of the labels, about


@dataclass(frozen=True)
class Mark:
    """A value with its interval, of series `s`; a value that is not known is NaN."""

    s: int
    x: float
    low: float | None = None
    high: float | None = None
    y: float = math.nan
    y_low: float | None = None
    y_high: float | None = None
    says: str = ""


@dataclass(frozen=True)
class Axis:
    """A linear scale with round ticks, from values to places on the page."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float | None], start: float, stop: float, *, zero: bool = False, n: int = 4) -> Axis:
        there = [v for v in values if v is not None and math.isfinite(v)] or [0.0, 1.0]
        low, high = min(there), max(there)
        low = min(low, 0.0) if zero else low
        if high - low < 1e-12:
            low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
        step = _round_step((high - low) / n)
        first = math.floor(low / step + 1e-9)
        last = math.ceil(high / step - 1e-9)
        ticks = tuple(i * step for i in range(first, last + 1))
        return cls(ticks[0], ticks[-1], start, stop, ticks)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def texts(self) -> list[str]:
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        digits += 0 if abs(step * 10**digits - round(step * 10**digits)) < 1e-6 else 1
        return [f"{tick + 0.0:,.{digits}f}" for tick in self.ticks]


def whiskers(labels: Sequence[str], rows: Sequence[Sequence[Mark]], says: str, *, zero: bool = False) -> str:
    """A row a label: its marks with their intervals along a shared axis."""
    gutter = min(150.0, max((len(label) for label in labels), default=0) * LETTER + 10)
    tall = max(ROW, 8.0 * max(map(len, rows), default=1) + 10)
    height = tall * len(rows) + 30
    marks = [mark for row in rows for mark in row]
    axis = Axis.over([v for m in marks for v in (m.x, m.low, m.high)], gutter + 8, W - 20, zero=zero)
    parts = _grid_x(axis, 4, height - 24)
    for number, (label, row) in enumerate(zip(labels, rows, strict=True)):
        middle = 4 + tall * (number + 0.5)
        parts.append(_label(gutter, middle + 4, label, gutter, anchor="end"))
        for place, mark in enumerate(row):
            if math.isnan(mark.x):
                continue
            at = middle + (place - (len(row) - 1) / 2) * 8.0
            ends = ""
            if mark.low is not None and mark.high is not None:
                ends = f'<path class="whisker" d="M{_n(axis(mark.low))} {_n(at)}H{_n(axis(mark.high))}"/>'
            parts.append(_series(mark.s, ends + _shape(mark.s, axis(mark.x), at), mark.says))
    return _svg(height, says, parts)


def curves(names: Sequence[str], series: Sequence[Sequence[Mark]], says: str) -> str:
    """A line a series through marks at evenly spaced places `names` (cut-offs); mark.y is the value."""
    height, left, right = 220.0, 46.0, W - 20
    values = [v for line in series for m in line for v in (m.y, m.y_low, m.y_high)]
    axis = Axis.over(values, height - 28, 10, zero=True)
    gap = (right - left - 20) / max(1, len(names) - 1)
    parts = _grid_y(axis, left, right)
    for number, name in enumerate(names):
        parts.append(_text(left + 10 + gap * number, height - 10, name, anchor="middle"))
    for line in series:
        there = [mark for mark in line if not math.isnan(mark.y)]
        if not there:
            continue
        path = "L".join(f"{_n(left + 10 + gap * m.x)} {_n(axis(m.y))}" for m in there)
        inner = f'<path class="line" d="M{path}"/>' if len(there) > 1 else ""
        for mark in there:
            at = left + 10 + gap * mark.x
            if mark.y_low is not None and mark.y_high is not None:
                inner += f'<path class="whisker" d="M{_n(at)} {_n(axis(mark.y_low))}V{_n(axis(mark.y_high))}"/>'
            inner += _titled(_shape(mark.s, at, axis(mark.y)), mark.says)
        parts.append(_series(there[0].s, inner))
    return _svg(height, says, parts)


def scatter(marks: Sequence[Mark], labels: Sequence[str], across: str, says: str) -> str:
    """Points with intervals both ways; a label stands beside its point where there is room for it."""
    height, left, right = 232.0, 46.0, W - 20
    there = [(mark, label) for mark, label in zip(marks, labels, strict=True) if not math.isnan(mark.x + mark.y)]
    wide = Axis.over([v for m, _ in there for v in (m.x, m.low, m.high)], left + 8, right - 8)
    tall = Axis.over([v for m, _ in there for v in (m.y, m.y_low, m.y_high)], height - 42, 10)
    parts = _grid_y(tall, left, right) + _grid_x(wide, 10, height - 40)
    parts.append(_text((left + right) / 2, height - 4, across, anchor="middle", css="name"))
    taken = [(wide(m.x) - 5, tall(m.y) - 5, wide(m.x) + 5, tall(m.y) + 5) for m, _ in there]
    for mark, label in there:
        x, y = wide(mark.x), tall(mark.y)
        inner = ""
        if mark.low is not None and mark.high is not None:
            inner += f'<path class="whisker" d="M{_n(wide(mark.low))} {_n(y)}H{_n(wide(mark.high))}"/>'
        if mark.y_low is not None and mark.y_high is not None:
            inner += f'<path class="whisker" d="M{_n(x)} {_n(tall(mark.y_low))}V{_n(tall(mark.y_high))}"/>'
        parts.append(_series(mark.s, inner + _shape(mark.s, x, y), mark.says))
        parts += _beside(x, y, label, taken, left, height - 40)
    return _svg(height, says, parts)


def frontier(marks: Sequence[Mark], labels: Sequence[str], across: str, says: str, edge: Sequence[int]) -> str:
    """Points over a cost in powers of ten; a line joins those of `edge`, which nothing cheaper equals."""
    height, left, right = 232.0, 46.0, W - 20
    there = [n for n, mark in enumerate(marks) if mark.x > 0 and math.isfinite(mark.x + mark.y)]
    powers = [math.log10(marks[n].x) for n in there] or [0.0, 1.0]
    low, high = math.floor(min(powers) - 0.02), math.ceil(max(powers) + 0.02)
    wide = Axis(low, high, left + 8, right - 8, tuple(float(power) for power in range(low, high + 1)))
    tall = Axis.over([v for n in there for v in (marks[n].y, marks[n].y_low, marks[n].y_high)], height - 42, 10)
    parts = _grid_y(tall, left, right)
    parts += _grid_x(wide, 10, height - 40, texts=[f"{10.0**power:,.6g}" for power in wide.ticks])
    parts.append(_text((left + right) / 2, height - 4, across, anchor="middle", css="name"))
    steps = sorted((math.log10(marks[n].x), marks[n].y) for n in edge if n in there)
    if len(steps) > 1:
        path = f"M{_n(wide(steps[0][0]))} {_n(tall(steps[0][1]))}"
        path += "".join(f"H{_n(wide(x))}V{_n(tall(y))}" for x, y in steps[1:])
        parts.append(f'<path class="edge" d="{path}"/>')
    places = {n: (wide(math.log10(marks[n].x)), tall(marks[n].y)) for n in there}
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places.values()]
    for n, (x, y) in places.items():
        mark, inner = marks[n], ""
        if mark.y_low is not None and mark.y_high is not None:
            inner = f'<path class="whisker" d="M{_n(x)} {_n(tall(mark.y_low))}V{_n(tall(mark.y_high))}"/>'
        parts.append(_series(mark.s, inner + _shape(mark.s, x, y), mark.says))
        parts += _beside(x, y, labels[n], taken, left, height - 40)
    return _svg(height, says, parts)


def shares(labels: Sequence[str], rows: Sequence[Sequence[float]], keys: Sequence[str], says: str) -> str:
    """A bar a label, cut into shares that sum to 1; the cuts are named by `keys` in the page's legend."""
    gutter = min(150.0, max((len(label) for label in labels), default=0) * LETTER + 10)
    height = ROW * len(rows) + 30
    axis = Axis(0.0, 1.0, gutter + 8, W - 20, (0.0, 0.25, 0.5, 0.75, 1.0))
    parts = _grid_x(axis, 4, height - 24, texts=["0", "25 %", "50 %", "75 %", "100 %"])
    for number, (label, row) in enumerate(zip(labels, rows, strict=True)):
        top = 4 + ROW * number + 3
        parts.append(_label(gutter, top + 13, label, gutter, anchor="end"))
        done = 0.0
        for cut, share in enumerate(row):
            if share > 0:
                x, wide = axis(done), axis(done + share) - axis(done)
                bar = f'<rect class="q{cut}" x="{_n(x)}" y="{_n(top)}" width="{_n(wide)}" height="{_n(ROW - 6)}"/>'
                parts.append(_titled(bar, f"{label}: {keys[cut]}: {share:.1%} of requests"))
            done += share
    return _svg(height, says, parts)


def swatch(s: int) -> str:
    """The mark of a series, for a legend."""
    inner = _series(s, _shape(s, 7, 7))
    return f'<svg class="swatch" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{inner}</svg>'


# -- pieces


def _svg(height: float, says: str, parts: Sequence[str]) -> str:
    head = f'<svg class="plot" viewBox="0 0 {_n(W)} {_n(height)}" role="img" aria-label="{escape(says)}">'
    return f"{head}{''.join(parts)}</svg>"


def _grid_x(axis: Axis, top: float, bottom: float, texts: Sequence[str] | None = None) -> list[str]:
    texts = axis.texts() if texts is None else texts
    room = max(1, math.ceil(len(texts) * (max(map(len, texts)) + 2) * LETTER / (axis.stop - axis.start)))
    parts = []
    for number, (tick, text) in enumerate(zip(axis.ticks, texts, strict=True)):
        x = _n(axis(tick))
        parts.append(f'<path class="grid" d="M{x} {_n(top)}V{_n(bottom)}"/>')
        if number % room == 0:
            parts.append(_text(axis(tick), bottom + 15, text, anchor="middle"))
    return parts


def _grid_y(axis: Axis, left: float, right: float) -> list[str]:
    parts = []
    for tick, text in zip(axis.ticks, axis.texts(), strict=True):
        y = axis(tick)
        parts.append(f'<path class="grid" d="M{_n(left)} {_n(y)}H{_n(right)}"/>')
        parts.append(_text(left - 5, y + 4, text, anchor="end"))
    return parts


def _beside(
    x: float, y: float, label: str, taken: list[tuple[float, float, float, float]], left: float, bottom: float
) -> list[str]:
    """A point's label where there is room for it, which it then takes; nothing where there is none."""
    length = min(len(label), 24) * LETTER
    for box, anchor in (
        ((x + 8, y - 7, x + 8 + length, y + 6), "start"),
        ((x - 8 - length, y - 7, x - 8, y + 6), "end"),
        ((x - length / 2, y - 21, x + length / 2, y - 8), "middle"),
        ((x - length / 2, y + 8, x + length / 2, y + 21), "middle"),
    ):
        free = all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken)
        if free and box[0] > left and box[2] < W - 2 and box[1] > 0 and box[3] < bottom:
            taken.append(box)
            at = {"start": box[0], "end": box[2], "middle": x}[anchor]
            return [_label(at, box[3] - 2, label, 24 * LETTER, anchor=anchor)]
    return []


def _series(s: int, inner: str, says: str = "") -> str:
    return f'<g class="c{s % COLOURS}">{_title(says)}{inner}</g>'


def _titled(inner: str, says: str) -> str:
    return f"<g>{_title(says)}{inner}</g>"


def _title(says: str) -> str:
    return f"<title>{escape(says)}</title>" if says else ""


def _shape(s: int, x: float, y: float) -> str:
    draw: tuple[Callable[[], str], ...] = (
        lambda: f'<circle class="dot" cx="{_n(x)}" cy="{_n(y)}" r="4.2"/>',
        lambda: f'<rect class="dot" x="{_n(x - 3.7)}" y="{_n(y - 3.7)}" width="7.4" height="7.4"/>',
        lambda: f'<path class="dot" d="M{_n(x)} {_n(y - 5)}l4.8 8.4h-9.6z"/>',
        lambda: f'<path class="dot" d="M{_n(x)} {_n(y - 5.4)}l5.4 5.4-5.4 5.4-5.4-5.4z"/>',
    )
    return draw[s % SHAPES]()


def _label(x: float, y: float, text: str, room: float, *, anchor: str) -> str:
    most = max(4, int(room / LETTER))
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return _text(x, y, shown, anchor=anchor, css="name", says=text if shown != text else "")


def _text(x: float, y: float, text: str, *, anchor: str, css: str = "tick", says: str = "") -> str:
    return f'<text class="{css}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{_title(says)}{escape(text)}</text>'


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= rough * (1 - 1e-9))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
