"""What wrong answers cost, likeness, and what another system thinks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tastemaker.nn.group_rewards import likeness, opinion, rank_penalty
from tastemaker.types import CapabilityError, Requests


def test_wrong_answers_cost_more_the_higher_they_stand_where_the_right_one_is_known() -> None:
    right = np.array([[0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    found = rank_penalty(right)
    gains = [1 / np.log2(i + 2) for i in range(4)]
    np.testing.assert_allclose(found[0], [-gains[0] / sum(gains), 0, -gains[2] / sum(gains), -gains[3] / sum(gains)])
    assert (found[1] == 0).all() and found[0, 0] < found[0, 2] < found[0, 3] < 0


def test_likeness_is_the_cosine() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0], [0.0, 0.0]])
    found = likeness(vectors, np.array([[0, 2, -1], [0, 3, 1]]), np.array([0, 1]))
    np.testing.assert_allclose(found, [[1, 0.5**0.5, 0], [0, 0, 1]], atol=1e-12)


class Scorer:
    def score(self, requests: Requests, items: Any = None) -> Any:
        return np.asarray(items) * 10.0 + np.arange(requests.n)[:, None]


class Embedder:
    vectors = np.random.default_rng(0).normal(size=(5, 3))

    def queries(self, requests: Requests) -> Any:
        return self.vectors[: requests.n]

    def items(self, numbers: Any = None) -> Any:
        return self.vectors[np.asarray(numbers)]


def test_an_opinion_is_a_score_or_an_inner_product() -> None:
    requests, items = Requests.of_items([[], [1]]), np.array([[1, 2], [3, -1]])
    assert opinion(Scorer(), requests, items).tolist() == [[10, 20], [31, 0]]
    found = opinion(Embedder(), requests, items)
    v = Embedder.vectors
    np.testing.assert_allclose(found, [[v[0] @ v[1], v[0] @ v[2]], [v[1] @ v[3], 0]])
    with pytest.raises(CapabilityError, match="scores no items"):
        opinion(object(), requests, items)
