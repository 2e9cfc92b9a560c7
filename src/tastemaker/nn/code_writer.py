"""A network that reads tokens and writes tuples of codes: an encoder over histories, a decoder that looks at it.

Many tuples may be written from one history, after different parts of it: the history is read once. So a row with all
its prefixes costs little more than the row, and the beams of a search share what they look at.

B rows, N tokens, L the longest row, M tuples, t codes of a tuple so far, Q levels, D width, H heads, W beginnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.nn.attending import attend, heads
from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout
from tastemaker.nn.table import Table
from tastemaker.nn.transformer import ACTIVATIONS, Activation, Transformer

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Memory:
    """What was read of B rows: for each layer of the decoder keys and values [N, D], and where they lie."""

    layers: tuple[Pair, ...]
    layout: Layout

    @property
    def n_rows(self) -> int:
        return self.layout.n_rows


@dataclass(frozen=True, eq=False)
class View:
    """Whose tuples are whose, and how much of its row each looks at.

    Shapes: layout of M tuples in B rows; sees [M] int64, tokens of its row from the first on, or None: all of it
    """

    layout: Layout
    sees: Tensor | None = None

    @classmethod
    def whole(cls, memory: Memory, n: int) -> View:
        """n tuples a row, each looking at all of it."""
        offsets = torch.arange(memory.n_rows + 1, device=memory.layout.offsets.device) * n
        return cls(Layout.of(offsets, n, memory.n_rows * n))

    def of_codes(self, t: int) -> View:
        """Of each tuple t codes."""
        if t == 1:
            return self
        layout = Layout.of(self.layout.offsets * t, self.layout.length * t, len(self.layout.columns) * t)
        return View(layout, None if self.sees is None else self.sees.repeat_interleave(t))


class DecoderBlock(nn.Module):
    """Attention to the codes before, attention to what was read, two layers for each code; each with a norm before it,
    a dropout and a residual.

    Ref: Vaswani et al., arXiv:1706.03762, section 3.1; Xiong et al., arXiv:2002.04745 (norms first).
    """

    def __init__(self, dim: int, n_heads: int, hidden: int, dropout: float, activation: Activation) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.inward, self.outward = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.ask, self.look, self.told = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.each = nn.Sequential(
            nn.Linear(dim, hidden), ACTIVATIONS[activation](), Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.first, self.second, self.third = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = Dropout(dropout)

    def read(self, memory: Tensor) -> Pair:
        """Keys and values [N, D] of what was read [N, D]."""
        keys, values = self.look(memory).chunk(2, dim=-1)
        return keys, values

    def forward(self, x: Tensor, seen: Pair, where: Layout, view: View, past: Pair | None) -> tuple[Tensor, Pair]:
        """[M, t, D] to [M, t, D], and keys and values of the codes so far.

        Args:
            seen, where: keys and values of what was read, and where they lie.
            view: of the M t codes.
            past: keys and values of codes before these.
        """
        mixed, kept = self._before(self.first(x), past)
        x = x + self.drop(mixed)
        asked = self.ask(self.second(x)).flatten(0, 1)
        across = attend(asked, *seen, view.layout, where, self.n_heads, sees=view.sees)
        x = x + self.drop(self.told(across).view_as(x))
        return x + self.drop(self.each(self.third(x))), kept

    def _before(self, x: Tensor, past: Pair | None) -> tuple[Tensor, Pair]:
        queries, keys, values = (heads(part, self.n_heads) for part in self.inward(x).chunk(3, dim=-1))
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=past is None and x.shape[1] > 1)
        return self.outward(mixed.transpose(1, 2).flatten(2)), (keys, values)


class CodeWriter(nn.Module):
    """Reads rows of tokens, writes tuples of codes. A code has one vector, for reading and for writing.

    Args:
        sizes: codes of each level; a token is a code, moved behind those of the levels before.
        n_signs: further tokens that are read and never written.
        longest: tokens of a row at most.
        n_encoder, n_decoder: blocks of each.
        causal: each token sees those before it and itself, and may be looked at by itself (all prefixes of a row from
            one reading); or all of its row.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dim: int,
        *,
        n_signs: int,
        longest: int,
        n_encoder: int,
        n_decoder: int,
        n_heads: int,
        hidden: int,
        dropout: float,
        causal: bool,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.sizes, self.dim = tuple(sizes), dim
        self.shifts = [sum(self.sizes[:level]) for level in range(len(self.sizes))]
        self.tokens = Table(sum(self.sizes) + n_signs, dim, std=0.02)
        self.places = Table(longest, dim, std=0.02)
        self.levels = Table(len(self.sizes), dim, std=0.02)
        self.drop = Dropout(dropout)
        self.encoder = Transformer(
            dim, n_encoder, n_heads, hidden=hidden, dropout=dropout, causal=causal, activation=activation
        )
        self.decoder = nn.ModuleList(DecoderBlock(dim, n_heads, hidden, dropout, activation) for _ in range(n_decoder))
        self.final = nn.LayerNorm(dim)

    @property
    def depth(self) -> int:
        return len(self.sizes)

    @property
    def blocks(self) -> list[DecoderBlock]:
        return list(self.decoder)  # type: ignore[arg-type]

    def read(self, tokens: Tensor, offsets: Tensor, longest: int) -> Memory:
        """Rows of tokens [N], row b being tokens[offsets[b]:offsets[b + 1]], none of them empty."""
        layout = Layout.of(offsets, longest, len(tokens))
        x = self.tokens(tokens) * self.dim**0.5 + self.places(layout.columns)
        x = self.encoder(self.drop(x), layout)
        return Memory(tuple(block.read(x) for block in self.blocks), layout)

    def written(self, memory: Memory, codes: Tensor, view: View) -> Tensor:
        """What is known before each code [M, Q, D] of tuples [M, Q]."""
        shifts = torch.tensor(self.shifts[:-1], dtype=torch.int64, device=codes.device)
        before = self.tokens(codes[:, :-1] + shifts) * self.dim**0.5
        x = torch.cat([before.new_zeros(len(codes), 1, self.dim), before], dim=1) + self.levels.weight
        states, _ = self._decoded(x, memory, view, None)
        return states

    def logp(self, states: Tensor, level: int) -> Tensor:
        """Log-probabilities [.., V] of the codes of a level from what is known before it [.., D]."""
        return torch.log_softmax(self.logits(states, level).float(), dim=-1)

    def logits(self, states: Tensor, level: int) -> Tensor:
        start = self.shifts[level]
        return states @ self.tokens.weight[start : start + self.sizes[level]].T

    def _decoded(self, x: Tensor, memory: Memory, view: View, past: Sequence[Pair] | None) -> tuple[Tensor, list[Pair]]:
        x, kept = self.drop(x), []
        view = view.of_codes(x.shape[1])
        for n, block in enumerate(self.blocks):
            x, pair = block(x, memory.layers[n], memory.layout, view, None if past is None else past[n])
            kept.append(pair)
        states: Tensor = self.final(x)
        return states, kept


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read, to be written from: see `tastemaker.nn.code_answers.Reading`."""

    writer: CodeWriter
    memory: Memory

    def steps(self) -> Writing:
        return Writing(self.writer, self.memory)

    def logp(self, codes: Tensor) -> list[Tensor]:
        """For each level the log-probabilities [B, n, V] of its codes after those before of tuples [B, n, Q]."""
        b, n, depth = codes.shape
        view = View.whole(self.memory, n)
        states = self.writer.written(self.memory, codes.view(b * n, depth), view).view(b, n, depth, -1)
        return [self.writer.logp(states[:, :, level], level) for level in range(depth)]


class Writing:
    """The writer in the middle of B rows, as a search or a sampler drives it: see `tastemaker.nn.decoding.Steps`.

    What was made of the codes so far is kept for each beginning, and follows it when beginnings are chosen.
    """

    def __init__(self, writer: CodeWriter, memory: Memory) -> None:
        self.writer, self.memory = writer, memory
        self.past: list[Pair] | None = None
        self.level, self.width = 0, 1

    def __call__(self, rows: Tensor | None = None, codes: Tensor | None = None) -> Tensor:
        writer, b = self.writer, self.memory.n_rows
        x = writer.levels.weight[self.level].expand(b, 1, -1)
        if rows is not None and codes is not None:
            assert self.past is not None
            first = torch.arange(b, device=rows.device).unsqueeze(1) * self.width
            picked = (first + rows).flatten()
            self.past = [(keys[picked], values[picked]) for keys, values in self.past]
            self.width = rows.shape[1]
            token = codes.flatten() + writer.shifts[self.level - 1]
            x = (writer.tokens(token) * writer.dim**0.5 + writer.levels.weight[self.level]).unsqueeze(1)
        view = View.whole(self.memory, self.width)
        states, self.past = writer._decoded(x, self.memory, view, self.past)
        self.level += 1
        return writer.logp(states.view(b, self.width, -1), self.level - 1)
