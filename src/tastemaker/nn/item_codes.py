"""How a system comes by the codes of its items: made of vectors once, told apart, kept for items that come later.

self.coder = ItemCoder(CodeConfig("kmeans", levels=3), width)
codes = yield from self.coder.learn(vectors)          # within a program
more = self.coder.further(new_vectors, codes)          # items that came later; the old ones' stay
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tastemaker.contracts import Epochs, Feed, Optimiser, Precompute, Stage, Train
from tastemaker.nn.content import restore_layers
from tastemaker.nn.quantise import (
    code_figures,
    coded,
    digits_for,
    quantised,
    reconstruction_error,
    residuals,
    spread_last,
    with_digit,
)
from tastemaker.nn.rqvae import RQVAE, Vectors
from tastemaker.types import BundleError, State, to_numpy
from tastemaker.types.codes import Ints

Floats = NDArray[np.float32]
Codes = Literal["kmeans", "balanced", "rqvae", "lsh", "random"]
Rows = Callable[[int, int, Callable[..., Vectors]], Feed]
Collisions = Literal["digit", "sinkhorn"]
KEPT = ("mean", "scale", "centres")
BATCH = 1024  # vectors a step of the RQ-VAE
ITEMS_A_CODE = 8  # least items a code on the first level


@dataclass(frozen=True)
class CodeConfig:
    """What makes codes.

    levels, size: levels, and codes of each at most; fewer where the catalogue is small, but for "rqvae"
    collisions: items of one tuple get a further "digit", or by "sinkhorn" other last codes as far as there are any
    digits: how many items of one tuple the further digit tells apart
    latent, epochs, lr: of the RQ-VAE
    """

    how: Codes = "kmeans"
    levels: int = 3
    size: int = 256
    collisions: Collisions = "digit"
    digits: int = 256
    latent: int = 32
    epochs: int = 500
    lr: float = 1e-3

    def __post_init__(self) -> None:
        if self.collisions == "sinkhorn" and self.how in ("lsh", "random"):
            raise ValueError(f"codes by {self.how} have no centres to deal out, so their collisions need a digit")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level, that of the digit included."""
        return (self.size,) * self.levels + ((self.digits,) if self.collisions == "digit" else ())


class ItemCoder(nn.Module):
    """Vectors [n, W] to codes [n, Q]; what it learnt lies in arrays, and with "rqvae" in weights.

    figures: how the codes are used, before items of one tuple were told apart
    """

    def __init__(self, config: CodeConfig, width: int) -> None:
        super().__init__()
        self.config, self.width = config, width
        hidden = 256, 128, config.latent
        self.rqvae = RQVAE(width, hidden, config.levels, config.size) if config.how == "rqvae" else None
        self.centres: dict[str, NDArray[Any]] = {}
        self.figures: dict[str, float] = {}

    def learn(self, vectors: Floats, feed: Rows) -> Generator[Stage, Any, Ints]:
        """Stages that make the codes of a catalogue; `feed` deals rows into batches (`tastemaker.feeds.RowFeed`)."""
        c = self.config
        if self.rqvae is not None:
            yield self._training(vectors, feed)
            first = self._coded(vectors, 0)
        else:
            k = min(c.size, max(2, len(vectors) // ITEMS_A_CODE))
            found = yield Precompute(quantised, vectors, c.how, c.levels, k)
            self.centres, first = {name: found[name] for name in KEPT}, found["codes"]
        self.figures = self._judged(vectors, first)
        if c.collisions == "digit":
            return with_digit(first, c.digits, self.n_codes)
        if self.rqvae is None:
            left = residuals(vectors, self.centres, first[:, :-1])
            return spread_last(first, left, self.centres["centres"][-1])
        left = to_numpy(self.rqvae.last_residual(self._tensor(vectors)))
        return spread_last(first, left, to_numpy(self.rqvae.codes[-1]))

    def further(self, vectors: Floats, old: Ints) -> Ints:
        """Codes of further items, numbered on from the old ones, whose codes [I, Q] stay as they are."""
        codes = self._coded(vectors, len(old))
        if self.config.collisions == "digit":
            return digits_for(codes, old, self.config.digits, self.n_codes)
        return codes

    def renewed(self, given: Ints, vectors: Callable[[Ints], Floats]) -> Ints:
        """Codes [I, Q] of an older fit, -1 in the rows of items that it has not known, which get theirs now.

        Args:
            vectors: gives those of the items of these numbers.
        """
        codes, fresh = given.copy(), np.flatnonzero(given[:, 0] < 0)
        if len(fresh):
            codes[fresh] = self.further(vectors(fresh), np.delete(codes, fresh, axis=0))
        return codes

    @property
    def n_codes(self) -> int:
        """Codes of a level that are in use."""
        if self.rqvae is not None:
            return self.config.size
        n = int(self.centres["centres"].shape[1])
        return 2**n if self.config.how == "lsh" else n

    def _coded(self, vectors: Floats, first: int) -> Ints:
        how = self.config.how
        if self.rqvae is not None:
            return to_numpy(self.rqvae.encode(self._tensor(vectors))).astype(np.int64)
        assert how != "rqvae"
        return coded(vectors, self.centres, how, first)

    def _tensor(self, vectors: Floats) -> torch.Tensor:
        assert self.rqvae is not None
        return torch.from_numpy(vectors).to(self.rqvae.mean.device)

    def _training(self, vectors: Floats, feed: Rows) -> Train:
        rqvae = self.rqvae
        assert rqvae is not None

        def begin(epoch: int) -> None:
            if epoch == 0:
                rqvae.begin(vectors, int(torch.randint(2**62, ())))

        return Train(
            feed(len(vectors), BATCH, lambda rows, rng: Vectors(vectors[rows])),
            lambda batch: batch.values,
            lambda values, batch: rqvae(values),
            until=Epochs(self.config.epochs),
            optimiser=Optimiser(lr=self.config.lr),
            every_epoch=begin,
            parameters=list(rqvae.parameters()),
        )

    def _judged(self, vectors: Floats, codes: Ints) -> dict[str, float]:
        told = code_figures(codes, (self.n_codes,) * self.config.levels)
        if self.rqvae is not None:
            told["reconstruction error"] = self.rqvae.error(self._tensor(vectors))
        elif self.config.how in ("kmeans", "balanced"):
            told["reconstruction error"] = reconstruction_error(vectors, self.centres, codes)
        return told

    def adopt(self, old: ItemCoder) -> None:
        """Take an older fit's centres; weights come with the others."""
        self.centres = old.centres

    def export(self) -> dict[str, NDArray[Any]]:
        return {**self.centres, **{f"rqvae.{n}": to_numpy(a) for n, a in _weights(self.rqvae)}}

    def restore(self, state: State) -> None:
        """Take what `export` gave; BundleError where it does not fit: it may come from a stranger."""
        if self.rqvae is not None:
            restore_layers(self.rqvae, state, "rqvae.")
            return
        try:
            self.centres = {name: np.asarray(state[name]) for name in KEPT}
        except KeyError as error:
            raise BundleError(f"what makes codes keeps {error.args[0]!r}, which is not here") from error
        mean, scale, centres = (self.centres[name] for name in KEPT)
        wide = 0 if self.config.how == "random" else self.width
        fits = mean.shape == (self.width,) and scale.shape == (1,) and centres.ndim == 3
        fits = fits and len(centres) == self.config.levels and centres.shape[2] == wide
        fits = fits and centres.shape[1] >= 1 and self.n_codes <= self.config.size
        if not fits or not all(np.isfinite(self.centres[name]).all() for name in KEPT):
            raise BundleError(
                f"centres of {self.config.levels} levels, {wide} wide, were expected, got {centres.shape}"
            )


def _weights(module: nn.Module | None) -> list[tuple[str, Any]]:
    return [] if module is None else list(module.state_dict().items())
