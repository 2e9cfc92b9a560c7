"""BPR-MF: what it is asked for decides which items a choice is held against."""

from __future__ import annotations

import numpy as np
import torch

from tastemaker.contracts import find
from tastemaker.data import synthetic
from tastemaker.feeds import interaction_matrix
from tastemaker.types import make_config


def test_a_negative_is_the_hardest_of_the_pool_as_the_system_stands() -> None:
    data = synthetic(60, n_items=80, seed=1)
    info, found = find("bpr-mf"), {}
    for pool in (1, 8):
        torch.manual_seed(0)
        system = info.cls(make_config(info.config, {"pool": pool, "init": 1.0}), data.schema)
        feed = next(system.program(data)).feed
        batch = feed.batch(0, 0)
        assert feed.live == (pool > 1)
        chosen = set(zip(*interaction_matrix(data).nonzero(), strict=True))
        assert not any((u, i) in chosen for u, row in zip(batch.users, batch.negatives, strict=True) for i in row)
        found[pool] = system.scores(batch.users, batch.negatives).mean()
        with torch.no_grad():
            system.item_table.weight.neg_()  # so what was hardest is easiest
        again = feed.batch(0, 0)
        assert np.array_equal(again.negatives, batch.negatives) == (pool == 1)
    assert found[8] > found[1] + 1
