"""Transformers over ragged sequences: only attention sees a rectangle, all else works on the N values.

What was read of rows can be kept, and written on from: several continuations of a row share what they look at.

N values, B rows, L the longest row, D width, H heads, W continuations of a row, t values of each, s so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tastemaker.nn.attending import attend, heads
from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout

Pair = tuple[Tensor, Tensor]
"""Keys and values: of what was read [B, H, L, D / H], or of continuations [B, W, H, s, D / H]."""
Norm = Literal["pre", "post"]
Activation = Literal["relu", "gelu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class Attention(nn.Module):
    """Multi-head attention of each row to itself, each value to those before it and itself, or to all of its row.

    Weights of attention are not dropped out: kernels that never write them down are several times faster.

    Ref: Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.2.
    """

    def __init__(self, dim: int, n_heads: int, *, causal: bool) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.inward, self.outward = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """[N, D] to [N, D]."""
        queries, keys, values = self.inward(x).chunk(3, dim=-1)
        return self._mixed(queries, keys, values, layout)

    def read(self, x: Tensor, layout: Layout) -> tuple[Tensor, Pair]:
        """[N, D] to [N, D], and the keys and values of what was read."""
        queries, keys, values = self.inward(x).chunk(3, dim=-1)
        kept = heads(layout.pad(keys), self.n_heads), heads(layout.pad(values), self.n_heads)
        return self._mixed(queries, keys, values, layout), kept

    def _mixed(self, queries: Tensor, keys: Tensor, values: Tensor, layout: Layout) -> Tensor:
        mixed: Tensor = self.outward(attend(queries, keys, values, layout, layout, self.n_heads, causal=self.causal))
        return mixed

    def go_on(self, x: Tensor, seen: Pair, visible: Tensor, past: Pair | None = None) -> tuple[Tensor, Pair]:
        """Continuations [B, W, t, D] to [B, W, t, D]: each value sees what is visible [B, L] of its row, and of its
        continuation what came before it, and itself. Returns their keys and values too, those of `past` before them."""
        b, w, t, dim = x.shape
        width = dim // self.n_heads
        queries, keys, values = (
            part.view(b, w, t, self.n_heads, width).transpose(2, 3) for part in self.inward(x).chunk(3, dim=-1)
        )
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=3), torch.cat([past[1], values], dim=3)
        length, s = seen[0].shape[2], keys.shape[3]
        rows = queries.transpose(1, 2).reshape(b, self.n_heads, w * t, width)
        across = (rows @ seen[0].transpose(-1, -2)).view(b, self.n_heads, w, t, length)
        across = across.masked_fill(~visible[:, None, None, None, :], -torch.inf)
        own = (queries @ keys.transpose(-1, -2)).transpose(1, 2)  # [B, H, W, t, s]
        later = torch.ones(t, s, dtype=torch.bool, device=x.device).triu(s - t + 1)
        own = own.masked_fill(later, -torch.inf)
        weights = torch.softmax(torch.cat([across, own], dim=-1) * width**-0.5, dim=-1)
        read, written = weights[..., :length], weights[..., length:]
        mixed = (read.reshape(b, self.n_heads, w * t, length) @ seen[1]).view(b, self.n_heads, w, t, width)
        mixed = mixed + (written.transpose(1, 2) @ values).transpose(1, 2)
        gone_on: Tensor = self.outward(mixed.permute(0, 2, 3, 1, 4).flatten(3))
        return gone_on, (keys, values)


class Block(nn.Module):
    """Attention, then two layers applied to each value; each with a residual, a dropout and a norm.

    Ref: arXiv:1706.03762, section 3.1 (norm "post": after the residual); Xiong et al., arXiv:2002.04745 ("pre").
    """

    def __init__(
        self, dim: int, n_heads: int, hidden: int, dropout: float, *, causal: bool, norm: Norm, activation: Activation
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attention = Attention(dim, n_heads, causal=causal)
        self.each = nn.Sequential(
            nn.Linear(dim, hidden), ACTIVATIONS[activation](), Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        return self._after(x, self.attention(self._before(x), layout))

    def read(self, x: Tensor, layout: Layout) -> tuple[Tensor, Pair]:
        mixed, pair = self.attention.read(self._before(x), layout)
        return self._after(x, mixed), pair

    def go_on(self, x: Tensor, seen: Pair, visible: Tensor, past: Pair | None = None) -> tuple[Tensor, Pair]:
        mixed, pair = self.attention.go_on(self._before(x), seen, visible, past)
        return self._after(x, mixed), pair

    def _before(self, x: Tensor) -> Tensor:
        normed: Tensor = self.first(x) if self.norm == "pre" else x
        return normed

    def _after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """x and what attention made of it, through the layers that are applied to each value."""
        x = x + self.drop(mixed)
        if self.norm == "pre":
            x = x + self.drop(self.each(self.second(x)))
        else:
            x = self.first(x)
            x = self.second(x + self.drop(self.each(x)))
        return x


class Transformer(nn.Module):
    """Blocks one after the other; with norm "pre" the sum they leave is normed at the end.

    Args:
        hidden: width of the inner layer; default: 4 D.

    Raises:
        ValueError: `dim` is no multiple of `n_heads`.
    """

    def __init__(
        self,
        dim: int,
        n_layers: int,
        n_heads: int,
        *,
        hidden: int | None = None,
        dropout: float = 0.0,
        causal: bool = True,
        norm: Norm = "pre",
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"{n_heads} heads do not share a width of {dim} evenly")
        self.blocks = nn.ModuleList(
            Block(dim, n_heads, hidden or 4 * dim, dropout, causal=causal, norm=norm, activation=activation)
            for _ in range(n_layers)
        )
        self.final = nn.LayerNorm(dim) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """[N, D] to [N, D]."""
        for block in self.blocks:
            x = block(x, layout)
        normed: Tensor = self.final(x)
        return normed

    def read(self, x: Tensor, layout: Layout) -> tuple[Tensor, list[Pair]]:
        """[N, D] to [N, D], and what each block keeps of what was read."""
        kept = []
        for block in self.blocks:
            x, pair = block.read(x, layout)  # type: ignore[operator]
            kept.append(pair)
        return self.final(x), kept

    def go_on(
        self, x: Tensor, seen: Sequence[Pair], visible: Tensor, past: Sequence[Pair] | None = None
    ) -> tuple[Tensor, list[Pair]]:
        """Continuations [B, W, t, D] of rows that were read, after `past` of them; see `Attention.go_on`."""
        kept = []
        for n, block in enumerate(self.blocks):
            x, pair = block.go_on(x, seen[n], visible, None if past is None else past[n])  # type: ignore[operator]
            kept.append(pair)
        return self.final(x), kept
