"""Ragged values in a rectangle and back: padding is made where a kernel needs it, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the N values of B rows lie in a rectangle [B, L]: each row from the left, in order.

    Shapes:
        offsets: [B + 1] int64
        columns: [N] int64, the place of each value in its row, from 0
        ages: [N] int64, how many values of its row come after it
        places: [N] int64, its place in the flat rectangle; None where all rows are full
    """

    offsets: Tensor
    length: int
    columns: Tensor
    ages: Tensor
    places: Tensor | None

    @classmethod
    def of(cls, offsets: Tensor, length: int, n: int) -> Layout:
        """The layout of rows of at most `length` values, `n` in all; says nothing to the host, so nothing waits."""
        rows = len(offsets) - 1
        if n == rows * length:
            columns = torch.arange(length, device=offsets.device).repeat(rows)
            return cls(offsets, length, columns, length - 1 - columns, None)
        row = torch.repeat_interleave(offsets[1:] - offsets[:-1], output_size=n)
        at = torch.arange(n, device=offsets.device)
        columns = at - offsets[row]
        return cls(offsets, length, columns, offsets[row + 1] - 1 - at, row * length + columns)

    @property
    def n_rows(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def bands(self) -> list[tuple[int, int]]:
        """Rows from one number up to another, those of at most a quarter of the length, of at most half, and the rest;
        all in one where they are not in order of length, or where asking for lengths would make the host wait."""
        whole = [(0, self.n_rows)]
        if self.places is None or self.offsets.device.type != "cpu":
            return whole
        lengths = torch.diff(self.offsets)
        if (lengths[1:] < lengths[:-1]).any():
            return whole
        limits = torch.tensor([self.length // 4, self.length // 2])
        cuts = [0, *torch.searchsorted(lengths, limits, right=True).tolist(), self.n_rows]
        return [band for band in pairwise(cuts) if band[1] > band[0]]

    def part(self, first: int, last: int) -> Layout:
        """The rows from `first` up to `last` alone, in a rectangle of their own; asks the host for lengths."""
        offsets = self.offsets[first : last + 1]
        longest = max(1, int(torch.diff(offsets).max()))
        return Layout.of(offsets - offsets[0], longest, int(offsets[-1] - offsets[0]))

    @property
    def last(self) -> Tensor:
        """Which of the N values is the last of each row [B]; rows must not be empty."""
        return self.offsets[1:] - 1

    def pad(self, values: Tensor) -> Tensor:
        """[N, ...] to [B, L, ...]; zero where there is no value."""
        if self.places is None:
            return values.view(self.n_rows, self.length, *values.shape[1:])
        flat = values.new_zeros(self.n_rows * self.length, *values.shape[1:])
        return flat.index_copy_(0, self.places, values).view(self.n_rows, self.length, *values.shape[1:])

    def flat(self, padded: Tensor) -> Tensor:
        """[B, L, ...] to [N, ...]."""
        flat = padded.reshape(self.n_rows * self.length, *padded.shape[2:])
        return flat if self.places is None else flat.index_select(0, self.places)

    def filled(self) -> Tensor:
        """Where the rectangle has values [B, L]."""
        lengths = self.offsets[1:] - self.offsets[:-1]
        return torch.arange(self.length, device=self.offsets.device) < lengths.unsqueeze(1)
