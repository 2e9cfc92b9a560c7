"""A decoder alone: reads tokens (codes, words, signs) and writes on, codes of items or words.

It has one vector a token, for reading and for writing. A code is chosen among those of its level, a word among words.

B rows, N tokens, L the longest row, W continuations of a row, Q levels, D width, V codes of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout
from tastemaker.nn.table import Table
from tastemaker.nn.transformer import Pair


class Body(Protocol):
    """What makes states of vectors: `tastemaker.nn.transformer.Transformer`, or a model by name."""

    def __call__(self, x: Tensor, layout: Layout) -> Tensor:
        """[N, D] to [N, D]."""

    def read(self, x: Tensor, layout: Layout) -> tuple[Tensor, Sequence[Pair]]:
        """The same, and what each layer keeps: keys and values [B, H, L, D / H]."""

    def go_on(
        self, x: Tensor, seen: Sequence[Pair], visible: Tensor, past: Sequence[Pair] | None = None
    ) -> tuple[Tensor, Sequence[Pair]]:
        """Continuations [B, W, t, D] of what was seen of rows, where it is visible [B, L], after `past` of them."""


class TokenWriter(nn.Module):
    """Tokens are codes, those of a level moved behind those of the levels before, then words, then signs.

    Args:
        sizes: codes of each level.
        body: a module, see `Body`, in which a value looks at those before it alone.
        n_words: words, and the sign that a text ends, which is written as a word is.
        n_signs: further tokens that are read and never written.
        longest: tokens of a row at most, what is written included; None: the body tells places apart itself, and
            takes vectors as they are.

    Ref: Radford et al., "Language models are unsupervised multitask learners", 2019 (a decoder alone, norms first).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dim: int,
        body: nn.Module,
        *,
        n_words: int,
        n_signs: int,
        longest: int | None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.sizes, self.dim, self.n_words = tuple(sizes), dim, n_words
        self.shifts = [sum(self.sizes[:level]) for level in range(len(self.sizes))]
        self.n_codes = sum(self.sizes)
        self.tokens = Table(self.n_codes + n_words + n_signs, dim, std=0.02)
        self.places = None if longest is None else Table(longest, dim, std=0.02)
        self.drop = Dropout(dropout)
        self.body = body

    @property
    def depth(self) -> int:
        """Q."""
        return len(self.sizes)

    @torch.no_grad()
    def take_words(self, vectors: Tensor) -> None:
        """Begin with these vectors of words [V, D]; that of a text's end is drawn."""
        self.tokens.weight[self.n_codes : self.n_codes + len(vectors)] = vectors.to(self.tokens.weight)

    def forward(self, tokens: Tensor, offsets: Tensor, longest: int) -> Tensor:
        """What is known after each token [N, D] of rows, row b being tokens[offsets[b]:offsets[b + 1]]."""
        layout = Layout.of(offsets, longest, len(tokens))
        states: Tensor = self.body(self._vectors(tokens, layout.columns), layout)
        return states

    def read(self, tokens: Tensor, offsets: Tensor, longest: int) -> Reading:
        """Rows of tokens, none of them empty, to be written on from."""
        layout = Layout.of(offsets, longest, len(tokens))
        states, kept = self._body.read(self._vectors(tokens, layout.columns), layout)
        return Reading(self, tuple(kept), torch.diff(offsets), states[layout.last])

    def logits(self, states: Tensor, level: int) -> Tensor:
        """[.., V] of the codes of a level, or with `level` Q of the words, from what is known before it [.., D]."""
        start, n = (self.n_codes, self.n_words) if level == self.depth else (self.shifts[level], self.sizes[level])
        return states @ self.tokens.weight[start : start + n].T

    def logp(self, states: Tensor, level: int) -> Tensor:
        """Their log-probabilities."""
        return torch.log_softmax(self.logits(states, level).float(), dim=-1)

    @property
    def _body(self) -> Body:
        return self.body  # type: ignore[return-value]

    def _vectors(self, tokens: Tensor, places: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.places is not None:
            x = x * self.dim**0.5 + self.places(places)
        dropped: Tensor = self.drop(x)
        return dropped


@dataclass(frozen=True, eq=False)
class Reading:
    """B rows as they were read, to be written on from: see `tastemaker.nn.code_answers.Reading`.

    Shapes: layers: for each block keys and values [B, H, L, D / H]; lengths [B]; last [B, D], known at the rows' ends
    """

    writer: TokenWriter
    layers: tuple[Pair, ...]
    lengths: Tensor
    last: Tensor

    def steps(self) -> Continuing:
        return Continuing(self)

    def logp(self, codes: Tensor) -> list[Tensor]:
        """For each level the log-probabilities [B, W, V] of its codes after those before of tuples [B, W, Q]."""
        writer = self.writer
        told = [writer.logp(self.last, 0).unsqueeze(1).expand(-1, codes.shape[1], -1)]
        if writer.depth > 1:
            states, _ = self.go_on(codes[..., :-1], 0, None)
            told += [writer.logp(states[:, :, level - 1], level) for level in range(1, writer.depth)]
        return told

    def go_on(self, codes: Tensor, level: int, past: Sequence[Pair] | None) -> tuple[Tensor, Sequence[Pair]]:
        """What is known after each of the codes [B, W, t] of levels from `level` on, which follow `past`."""
        writer, t = self.writer, codes.shape[2]
        steps = torch.arange(level, level + t, device=codes.device)
        shifts = torch.tensor(writer.shifts[level : level + t], device=codes.device)
        places = (self.lengths.unsqueeze(1) + steps).unsqueeze(1).expand(codes.shape)
        visible = torch.arange(self.layers[0][0].shape[2], device=codes.device) < self.lengths.unsqueeze(1)
        return writer._body.go_on(writer._vectors(codes + shifts, places), self.layers, visible, past)


class Continuing:
    """The writer in the middle of B rows, as a search or a sampler drives it: see `tastemaker.nn.decoding.Steps`."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.past: Sequence[Pair] | None = None
        self.level = 0

    def __call__(self, rows: Tensor | None = None, codes: Tensor | None = None) -> Tensor:
        reading, writer = self.reading, self.reading.writer
        if rows is None or codes is None:
            return writer.logp(reading.last, 0).unsqueeze(1)
        if self.past is not None:  # what was made of each beginning follows it
            b, w = rows.shape
            before = self.past[0][0].shape[1]
            picked = (torch.arange(b, device=rows.device).unsqueeze(1) * before + rows).flatten()
            self.past = [
                (
                    keys.flatten(0, 1)[picked].view(b, w, *keys.shape[2:]),
                    values.flatten(0, 1)[picked].view(b, w, *values.shape[2:]),
                )
                for keys, values in self.past
            ]
        states, self.past = reading.go_on(codes.unsqueeze(-1), self.level, self.past)
        self.level += 1
        return writer.logp(states.squeeze(2), self.level)
