"""A small world, a split of it, and systems fitted on its training part."""

from __future__ import annotations

import pytest

from tastemaker.data import split, synthetic
from tastemaker.train import Bundle, fit
from tastemaker.types import Dataset, Split

SYSTEMS = ("itemknn", "ials", "popularity")


@pytest.fixture(scope="session")
def data() -> Dataset:
    return synthetic(120, n_items=150, seed=3)


@pytest.fixture(scope="session")
def parts(data: Dataset) -> Split:
    return split(data, "leave-one-out")


@pytest.fixture(scope="session")
def shelf(parts: Split) -> dict[str, Bundle]:
    return {name: fit(name, parts.train, seed=1) for name in SYSTEMS}
