"""Posters, drawn on demand: what a film looks like follows from what it is, so image models have something to learn.

Hue and motif tell the first genre, the accent the second, brightness and saturation the moods, the frame the
maker; where the light stands and how high the ground is follow the film's hidden vector, which no text tells.
"""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tastemaker.data.synthetic import words
from tastemaker.data.synthetic.catalogue import Catalogue
from tastemaker.data.synthetic.words import N_GENRES
from tastemaker.types import generator, optional

WIDTH, HEIGHT = 160, 240
FINE = 2  # drawn this much larger, then scaled down, for smooth edges

# Saturation and brightness of each mood, in the order of `words.MOODS`.
MOOD_LIGHT = (
    (0.70, 0.55), (0.40, 0.90), (0.12, 0.45), (0.85, 0.95), (0.35, 0.80), (0.45, 0.40),
    (0.65, 0.92), (0.30, 0.35), (0.75, 0.70), (0.25, 0.75), (0.20, 0.65), (0.95, 0.60),
)  # fmt: skip

Colour = tuple[int, int, int]
Motif = Callable[[Any, int, int, int, Colour, np.random.Generator], None]


def draw_poster(catalogue: Catalogue, film: int, *, seed: int) -> bytes:
    """The poster of a film as a PNG of 160 x 240, the same in every process."""
    image_of = optional("PIL.Image", extra="images", why="drawing posters")
    draw_on = optional("PIL.ImageDraw", extra="images", why="drawing posters")
    rng = generator(seed, "synthetic", "poster", film)
    width, height = WIDTH * FINE, HEIGHT * FINE
    first, second = (int(g) for g in catalogue.genre[film])
    light = np.array([MOOD_LIGHT[m] for m in catalogue.mood[film]])
    saturation, value = light[0] * 0.75 + light[1] * 0.25
    hue = first / N_GENRES
    accent_hue = second / N_GENRES if second >= 0 else hue + 0.5

    top = np.array(_colour(hue, saturation, value), dtype=np.float64)
    bottom = np.array(_colour(hue, min(1.0, saturation + 0.1), value * 0.55), dtype=np.float64)
    ramp = np.linspace(0.0, 1.0, height)[:, None]
    rows = (top * (1 - ramp) + bottom * ramp).astype(np.uint8)
    image = image_of.fromarray(np.ascontiguousarray(np.broadcast_to(rows[:, None], (height, width, 3))))
    draw = draw_on.Draw(image)

    across, size, ground = (0.5 + 0.5 * math.tanh(2.5 * float(x)) for x in catalogue.vectors[film, :3])
    x, y, radius = width * (0.15 + 0.7 * across), height * 0.28, width * (0.06 + 0.14 * size)
    draw.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=_colour(accent_hue, 0.25, min(1.0, value + 0.3))
    )
    horizon = int(height * (0.75 - 0.25 * ground))
    draw.rectangle((0, horizon, width, height), fill=_colour(hue, saturation, value * 0.4))
    MOTIFS[first](draw, width, height, horizon, _colour(accent_hue, 0.3 + 0.6 * saturation, value * 0.8 + 0.1), rng)

    maker = int(catalogue.maker[film])
    frame = (2 + 2 * (maker % 4)) * FINE
    draw.rectangle((0, 0, width - 1, height - 1), outline=_colour((maker * 0.618) % 1.0, 0.3, 0.95), width=frame)
    _lettering(draw, catalogue, film, width, height)

    small = image.resize((WIDTH, HEIGHT), image_of.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, format="PNG", compress_level=6)
    return out.getvalue()


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, min(1.0, value))
    return round(255 * red), round(255 * green), round(255 * blue)


def _lettering(draw: Any, catalogue: Catalogue, film: int, width: int, height: int) -> None:
    fonts = optional("PIL.ImageFont", extra="images", why="drawing posters")
    font, small = fonts.load_default(size=17 * FINE), fonts.load_default(size=9 * FINE)
    lines: list[str] = []
    for word in str(catalogue.titles[film]).split():
        fits = lines and draw.textlength(f"{lines[-1]} {word}", font=font) < width * 0.86
        lines[-1:] = [f"{lines[-1]} {word}"] if fits else [*lines[-1:], word]
    step = 20 * FINE
    y = height - 14 * FINE - step * len(lines)
    for line in lines:
        draw.text((width / 2, y), line, font=font, fill="white", anchor="ma", stroke_width=FINE, stroke_fill="black")
        y += step
    credit = f"a film by {catalogue.makers[int(catalogue.maker[film])]}"
    draw.text((width / 2, 15 * FINE), credit, font=small, fill="white", anchor="ma")


# -- motifs, one a genre: draw, width, height, horizon, colour, random stream


def _mountains(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for peak in rng.uniform(0, w, 4):
        d.polygon([(peak - w * 0.3, y), (peak, y - h * rng.uniform(0.15, 0.3)), (peak + w * 0.3, y)], fill=colour)


def _balloons(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x, up in zip(rng.uniform(0.1, 0.9, 5) * w, rng.uniform(0.2, 0.6, 5) * y, strict=True):
        d.line((x, up, x, y), fill=colour, width=2)
        d.ellipse((x - 18, up - 24, x + 18, up + 20), fill=colour)


def _bunting(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for row in (0.35, 0.45):
        for x in range(0, w, 40):
            d.polygon([(x, h * row), (x + 36, h * row), (x + 18, h * row + 34)], fill=colour)


def _skyline(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x in range(0, w, 32):
        d.rectangle((x, y - h * rng.uniform(0.05, 0.35), x + 26, y), fill=colour)


def _waves(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    shift = rng.uniform(0, 6)
    for row in range(5):
        points = [(x, y + row * 18 + 8 * math.sin(x / 18 + row + shift)) for x in range(0, w + 8, 8)]
        d.line(points, fill=colour, width=5)


def _house(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    x = w * rng.uniform(0.25, 0.55)
    d.rectangle((x, y - 70, x + 90, y), fill=colour)
    d.polygon([(x - 14, y - 70), (x + 45, y - 120), (x + 104, y - 70)], fill=colour)
    d.rectangle((x + 36, y - 34, x + 56, y), fill="black")


def _kites(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x, up in zip(rng.uniform(0.1, 0.9, 4) * w, rng.uniform(0.25, 0.6, 4) * y, strict=True):
        d.polygon([(x, up - 30), (x + 20, up), (x, up + 34), (x - 20, up)], fill=colour)


def _towers(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x in (0.2, 0.45, 0.7):
        top = y - h * rng.uniform(0.15, 0.35)
        d.rectangle((w * x, top, w * x + 44, y), fill=colour)
        d.polygon([(w * x - 6, top), (w * x + 22, top - 48), (w * x + 50, top)], fill=colour)


def _arches(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    step = int(rng.integers(60, 90))
    for x in range(0, w, step):
        d.arc((x, y - 110, x + step - 10, y + 40), 180, 360, fill=colour, width=10)


def _trees(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x in rng.uniform(0, w, 7):
        d.line((x, y + 20, x + rng.uniform(-20, 20), y - h * 0.4), fill=colour, width=9)


def _rings(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    x = w * rng.uniform(0.35, 0.65)
    for radius in range(20, 120, 20):
        d.ellipse((x - radius, h * 0.45 - radius, x + radius, h * 0.45 + radius), outline=colour, width=5)


def _eye(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    x = w * rng.uniform(0.4, 0.6)
    d.ellipse((x - 90, h * 0.45 - 40, x + 90, h * 0.45 + 40), outline=colour, width=8)
    d.ellipse((x - 26, h * 0.45 - 26, x + 26, h * 0.45 + 26), fill=colour)


def _hearts(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x, up, s in zip(rng.uniform(0.15, 0.8, 3) * w, rng.uniform(0.3, 0.7, 3) * y, (20, 28, 36), strict=True):
        d.ellipse((x - s, up - s, x, up), fill=colour)
        d.ellipse((x, up - s, x + s, up), fill=colour)
        d.polygon([(x - s * 0.93, up - s * 0.3), (x + s * 0.93, up - s * 0.3), (x, up + s)], fill=colour)


def _orbits(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for tilt in (20, 45, 75):
        d.ellipse((w * 0.1, h * 0.42 - tilt, w * 0.9, h * 0.42 + tilt), outline=colour, width=4)
    for x in rng.uniform(0.1, 0.9, 12) * w:
        d.ellipse((x, h * 0.15 + x % 97, x + 5, h * 0.15 + x % 97 + 5), fill=colour)


def _slashes(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x in np.arange(-h, w, rng.uniform(50, 70)):
        d.line((x, h * 0.75, x + h * 0.6, h * 0.15), fill=colour, width=8)


def _mesas(d: Any, w: int, h: int, y: int, colour: Colour, rng: np.random.Generator) -> None:
    for x, tall in zip(rng.uniform(0, 0.8, 3) * w, (60, 90, 130), strict=True):
        d.polygon([(x - 20, y), (x, y - tall), (x + 60, y - tall), (x + 80, y)], fill=colour)


MOTIFS: tuple[Motif, ...] = (
    _mountains, _balloons, _bunting, _skyline, _waves, _house, _kites, _towers,
    _arches, _trees, _rings, _eye, _hearts, _orbits, _slashes, _mesas,
)  # fmt: skip
assert len(MOTIFS) == N_GENRES and len(MOOD_LIGHT) == len(words.MOODS)
