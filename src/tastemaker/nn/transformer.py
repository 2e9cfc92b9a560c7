"""Transformer encoders over ragged sequences: only attention sees a rectangle, all else works on the N values.

N values, B rows, L the longest row, D width, H heads.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout

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
        shape = layout.n_rows, layout.length, self.n_heads, x.shape[-1] // self.n_heads
        queries, keys, values = (
            layout.pad(part).view(shape).transpose(1, 2)  # [B, H, L, D / H]
            for part in self.inward(x).chunk(3, dim=-1)
        )
        mask = None
        if not self.causal and layout.places is not None:
            mask = layout.filled()[:, None, None, :]
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=self.causal)
        mixed_rows: Tensor = self.outward(layout.flat(mixed.transpose(1, 2).flatten(2)))
        return mixed_rows


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
        if self.norm == "pre":
            x = x + self.drop(self.attention(self.first(x), layout))
            x = x + self.drop(self.each(self.second(x)))
        else:
            x = self.first(x + self.drop(self.attention(x, layout)))
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
