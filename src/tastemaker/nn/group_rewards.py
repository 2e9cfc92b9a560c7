"""What the answers of a group are worth, beyond whether they are right.

B prompts, G answers to each, likeliest first, I items, W width of their vectors.

Ref: Kong et al. (MiniOneRec), arXiv:2510.24431, section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Embeds, Scores
from tastemaker.types import CapabilityError, Requests, to_numpy

Floats = NDArray[np.floating[Any]]


def rank_penalty(right: NDArray[np.bool_]) -> Floats:
    """What wrong answers are worth in a group that holds the right one: below 0, the more so the higher they stand,
    -1 / log2(place + 2) over the sum of all places'. In other groups nothing is known, and all are worth 0.

    Shapes: right [B, G], whether each answer is; returns [B, G].
    """
    gains = 1 / np.log2(np.arange(right.shape[1]) + 2)
    known = right.any(axis=1, keepdims=True)
    return np.where(known & ~right, -gains / gains.sum(), 0.0)


def likeness(vectors: Floats, items: NDArray[np.integer[Any]], targets: NDArray[np.integer[Any]]) -> Floats:
    """Cosine of each answer's vector and the right one's.

    Shapes: vectors [I, W]; items [B, G], -1: none, which is worth 0; targets [B]; returns [B, G].
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = np.einsum("bgw,bw->bg", unit[np.maximum(items, 0)], unit[targets])
    return np.where(items >= 0, cosines, 0.0)


def opinion(system: Any, requests: Requests, items: NDArray[np.integer[Any]]) -> Floats:
    """How much another system thinks of each answer: its score, or the inner product of its vectors.

    Shapes: items [B, G], -1: none, which is worth 0; returns [B, G].

    Raises:
        CapabilityError: it gives neither.
    """
    listed = np.maximum(items, 0)
    if isinstance(system, Scores):
        found = to_numpy(system.score(requests, listed))
    elif isinstance(system, Embeds):
        vectors = to_numpy(system.items(listed.ravel())).reshape(*listed.shape, -1)
        found = np.einsum("bgw,bw->bg", vectors, to_numpy(system.queries(requests)))
    else:
        raise CapabilityError(
            f"{type(system).__name__} scores no items, so it cannot reward answers", hint="sasrec does, or ials"
        )
    return np.where(items >= 0, found, 0.0)
