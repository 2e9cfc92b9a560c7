"""What a system keeps of its items' content, so that items that come later find those they are most like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.nn.neighbours import nearest_rows
from tastemaker.types import BundleError, State

Floats = NDArray[np.float32]


class Modality(Protocol):
    """How wide a modality's vectors are."""

    @property
    def width(self) -> int: ...


class ItemContent:
    """The vectors of each modality [I, W] of the items that were learnt from, what encoded them, and the items' rows
    [I, D] that a newcomer borrows from its neighbours."""

    def __init__(self, modalities: Sequence[Modality]) -> None:
        self.modalities = modalities
        self.vectors: list[Floats] = []
        self.kept: list[State] = []
        self.lent: Floats = np.zeros((0, 0), dtype=np.float32)

    def take(self, vectors: Sequence[Floats], kept: Sequence[State]) -> None:
        self.vectors, self.kept = list(vectors), list(kept)

    def hold(self, lent: Tensor) -> None:
        """What newcomers will borrow: [I, D]."""
        self.lent = lent.detach().cpu().numpy().copy()

    def placed(self, fresh: Sequence[Floats], shares: Sequence[float], k: int) -> Floats:
        """Rows of newcomers [n, D]: by each modality the mean of the lent rows of the k most alike, added by shares.

        Shapes: fresh: a matrix [n, W] a modality. A modality that says nothing of an item adds nothing.
        """
        total = np.zeros((len(fresh[0]), self.lent.shape[1]), dtype=np.float32)
        for vectors, new, share in zip(self.vectors, fresh, shares, strict=True):
            numbers, _ = nearest_rows(torch.from_numpy(new), k, torch.from_numpy(vectors))
            there = (numbers >= 0).numpy()
            rows = self.lent[numbers.clamp(min=0).numpy()] * there[:, :, None]
            total += np.float32(share) * rows.sum(axis=1) / np.maximum(there.sum(axis=1, keepdims=True), 1)
        return total

    def export(self) -> dict[str, Any]:
        told: dict[str, Any] = {"lent": self.lent}
        for n, (vectors, kept) in enumerate(zip(self.vectors, self.kept, strict=True)):
            told |= {f"content.{n}": vectors, **{f"encoder.{n}.{name}": array for name, array in kept.items()}}
        return told

    def restore(self, state: State, dim: int) -> None:
        """Take what `export` gave; BundleError where it does not fit."""
        self.lent = np.asarray(state.get("lent", np.zeros((0, dim))), dtype=np.float32)
        n_items = len(self.lent)
        self.vectors, self.kept = [], []
        for n, modality in enumerate(self.modalities):
            vectors = state.get(f"content.{n}")
            fits = vectors is not None and vectors.ndim == 2 and vectors.shape[1] == modality.width
            if vectors is None or not fits or (n_items and len(vectors) != n_items) or not np.isfinite(vectors).all():
                raise BundleError(
                    f"the content of modality {n} is finite and [{n_items}, {modality.width}]; this is not"
                )
            self.vectors.append(np.asarray(vectors, dtype=np.float32))
            self.kept.append(under(state, f"encoder.{n}."))
        if not np.isfinite(self.lent).all() or (n_items and self.lent.shape[1] != dim):
            raise BundleError(f"rows that newcomers borrow are finite and [I, {dim}]; these are not")


def under(state: State, prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def restore_layers(layers: nn.Module, state: State, prefix: str) -> None:
    """Take the weights of some layers from a bundle's arrays; BundleError where they do not fit."""
    found = {name: torch.from_numpy(np.array(array)) for name, array in under(state, prefix).items()}
    if bad := [name for name, weights in found.items() if not torch.isfinite(weights).all()]:
        raise BundleError(f"the weights {prefix}{bad[0]} hold values that are no numbers")
    try:
        layers.load_state_dict(found)
    except RuntimeError as error:
        raise BundleError(f"the weights do not fit the system: {error}") from error


@torch.no_grad()
def restore_array(into: Tensor, state: State, name: str) -> None:
    """Fill a tensor with one of a bundle's arrays; BundleError where it does not fit."""
    array = state.get(name)
    if array is None or array.shape != tuple(into.shape) or not np.isfinite(array).all():
        raise BundleError(f"{name} is finite and {list(into.shape)}; there is none such")
    into.copy_(torch.from_numpy(np.array(array)))
