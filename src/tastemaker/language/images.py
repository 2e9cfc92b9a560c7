"""Vectors of images without a network: where which colours are, how many of them, and which way edges run.

An image is brought to 64 x 64 and told by three parts of equal weight: the mean colour of each cell of a 4 x 4 grid,
the shares of 72 colours (hue, saturation and brightness in steps; roots of shares, so that the inner product of two
parts is their Bhattacharyya coefficient), and, cell by cell, how much of its edges runs in each of 8 directions.

Ref: Swain, Ballard, "Color indexing", IJCV 1991; Dalal, Triggs, "Histograms of oriented gradients", CVPR 2005.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types import DataError, optional
from tastemaker.types.progress import progress

SIDE, GRID, DIRECTIONS = 64, 4, 8
HUES, SATURATIONS, VALUES = 8, 3, 3
DIM = 3 * GRID * GRID + HUES * SATURATIONS * VALUES + DIRECTIONS * GRID * GRID

Floats = NDArray[np.float32]


class ImageStatistics:
    """Image files to vectors of unit length; no file, or "", is 0."""

    identity = "image-statistics-1"
    dim = DIM

    def encode(self, paths: Sequence[str]) -> Floats:
        """Vectors [n, DIM].

        Raises:
            DataError: a file is not there, or is no image.
        """
        image_of = optional("PIL.Image", extra="images", why="reading images")
        vectors = np.zeros((len(paths), DIM), dtype=np.float32)
        with progress("reading images", len(paths)) as advance:
            for row, path in enumerate(paths):
                if path:
                    vectors[row] = statistics(_pixels(image_of, path))
                advance(1)
        return vectors


def statistics(pixels: NDArray[np.uint8]) -> Floats:
    """What an image [64, 64, 3] is told by [DIM], of unit length."""
    image = (pixels / 255).astype(np.float32)
    parts = [_cells(image).mean(axis=1).ravel(), _colours(image), _edges(image)]
    whole = [_unit(part - part.mean() if n == 0 else part) for n, part in enumerate(parts)]
    return np.asarray(np.concatenate(whole) / np.sqrt(3), dtype=np.float32)


def _pixels(image_of: Any, path: str) -> NDArray[np.uint8]:
    try:
        with image_of.open(path) as image:
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGB").resize((SIDE, SIDE), image_of.Resampling.BILINEAR)
    except FileNotFoundError as error:
        raise DataError(f"there is no image {path}", hint="paths are as the items' column has them") from error
    except (OSError, ValueError, image_of.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return np.asarray(small, dtype=np.uint8)


def _cells(image: Floats) -> Floats:
    """[64, 64, C] as the pixels of each cell of the grid [16, 256, C]."""
    step = SIDE // GRID
    return image.reshape(GRID, step, GRID, step, -1).swapaxes(1, 2).reshape(GRID * GRID, step * step, -1)


def _colours(image: Floats) -> Floats:
    """Roots of the shares of colours [72]."""
    value, low = image.max(axis=2), image.min(axis=2)
    spread = value - low
    safe = np.where(spread > 0, spread, 1)
    red, green, blue = np.moveaxis(image, 2, 0)
    hue = np.where(
        value == red,
        (green - blue) / safe % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    saturation = np.where(value > 0, spread / np.where(value > 0, value, 1), 0)
    steps = [(hue / 6, HUES), (saturation, SATURATIONS), (value, VALUES)]
    at = [np.minimum((part * n).astype(np.int64), n - 1) for part, n in steps]
    place = (at[0] * SATURATIONS + at[1]) * VALUES + at[2]
    counts = np.bincount(place.ravel(), minlength=HUES * SATURATIONS * VALUES)
    return np.asarray(np.sqrt(counts / counts.sum()), dtype=np.float32)


def _edges(image: Floats) -> Floats:
    """How much of the edges of each cell runs in each direction [128]."""
    grey = image.mean(axis=2)
    down, across = np.gradient(grey)
    length = np.hypot(down, across)
    direction = (np.arctan2(down, across) / np.pi % 1 * DIRECTIONS).astype(np.int64) % DIRECTIONS
    both: Floats = _cells(np.stack([length, direction], axis=2).astype(np.float32))
    cell = np.arange(GRID * GRID)[:, None] * DIRECTIONS
    place = (cell + both[:, :, 1].astype(np.int64)).ravel()
    counts = np.bincount(place, both[:, :, 0].ravel(), minlength=GRID * GRID * DIRECTIONS)
    return np.asarray(counts, dtype=np.float32)


def _unit(part: NDArray[Any]) -> Floats:
    length = np.linalg.norm(part)
    return np.asarray(part / length if length > 1e-6 else np.zeros_like(part), dtype=np.float32)
