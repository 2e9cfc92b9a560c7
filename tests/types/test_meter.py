"""Costs of nested blocks."""

from __future__ import annotations

import numpy as np

from tastemaker.types.meter import machine, metered


def test_an_inner_block_does_not_hide_the_peak_of_the_outer_one() -> None:
    with metered() as outer:
        large = np.ones(30 * 2**20, dtype=np.float64)  # 240 MB, gone before the inner block begins
        del large
        with metered() as inner:
            small = np.ones(2**20, dtype=np.float64)
        del small
    assert outer.peak_mb >= inner.peak_mb
    assert outer.peak_mb > inner.peak_mb + 100, "the outer block's peak came before the inner block"
    assert outer.seconds >= inner.seconds > 0


def test_the_machine_is_described_without_its_name() -> None:
    about = machine()
    about["versions"]["numpy"] = "changed"
    assert machine()["versions"]["numpy"] == np.__version__, "who changes what was given changes nothing here"
    assert about["cores"] >= 1 and about["memory_gb"] > 0
