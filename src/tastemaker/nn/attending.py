"""Attention within ragged rows: rows of like lengths go through the kernel together, so little of it is padding.

B rows, M queries, N keys, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tastemaker.nn.ragged import Layout


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: Layout,
    seen: Layout,
    n_heads: int,
    *,
    sees: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """What each query [M, D] makes of the keys [N, D] of its row: scaled dot-product attention [M, D].

    A kernel's time grows with the rectangle that holds all rows, and one long row makes all of it long. On a processor
    rows that come in order of length are cut into bands (`Layout.bands`); an accelerator, where a call costs more
    than the padding, gets one rectangle.

    Args:
        asking, seen: where queries and keys lie; the same number of rows.
        sees: [M] of how many keys of its row, from the first on, a query knows, 1 at least; None: of all.
        causal: query i knows the keys up to i; the two layouts are the same.

    Ref: Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.2.
    """
    bands = seen.bands
    if len(bands) == 1:
        return _rectangle(queries, keys, values, asking, seen, n_heads, sees, causal)
    parts = [(asking.part(*band), seen.part(*band)) for band in bands]
    asked = [len(part.columns) for part, _ in parts]
    held = [len(part.columns) for _, part in parts]
    known = [None] * len(parts) if sees is None else torch.split(sees, asked)
    cut = zip(
        torch.split(queries, asked), torch.split(keys, held), torch.split(values, held), parts, known, strict=True
    )
    return torch.cat([_rectangle(q, k, v, *layouts, n_heads, mine, causal) for q, k, v, layouts, mine in cut])


def _rectangle(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: Layout,
    seen: Layout,
    n_heads: int,
    sees: Tensor | None,
    causal: bool,
) -> Tensor:
    mask = None
    if sees is not None:
        reach = asking.pad(sees).clamp_min(1).unsqueeze(-1)  # padding too sees something: no row of a softmax is empty
        mask = (torch.arange(seen.length, device=reach.device) < reach).unsqueeze(1)
    elif not causal and seen.places is not None:
        mask = seen.filled()[:, None, None, :]
    q, k, v = (heads(layout.pad(x), n_heads) for x, layout in ((queries, asking), (keys, seen), (values, seen)))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return asking.flat(mixed.transpose(1, 2).flatten(2))


def heads(x: Tensor, n_heads: int) -> Tensor:
    """[B, L, D] as [B, H, L, D / H]."""
    return x.view(*x.shape[:-1], n_heads, x.shape[-1] // n_heads).transpose(1, 2)
