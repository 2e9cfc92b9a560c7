"""Dropout at a fraction of its usual cost on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 1 << 16


class Dropout(nn.Module):
    """Each value is 0 with probability p, else it is divided by 1 - p; in evaluation nothing changes.

    On a CPU one random word serves four values, so that p is kept to within 2^-17; elsewhere it is torch's own.

    Ref: Srivastava et al., "Dropout", JMLR 2014.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        gone = round(self.p * STEPS)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = torch.empty(x.shape, dtype=x.dtype)  # numbers at once: a product with truth values takes thrice as long
        torch.ge(words.view(torch.int16)[: x.numel()].view(x.shape), gone - STEPS // 2, out=kept)
        return x * kept.mul_(STEPS / (STEPS - gone))

    def extra_repr(self) -> str:
        return f"p={self.p}"


@contextmanager
def nothing_dropped(module: nn.Module) -> Iterator[None]:
    """In here a module computes as it does when it answers; gradients come all the same."""
    was = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was)
