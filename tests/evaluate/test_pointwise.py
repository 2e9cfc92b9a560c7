"""The pointwise protocol: parity with scikit-learn, honest questions, a report like any other, a judge of training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.contracts import system
from tastemaker.data import build, split, synthetic
from tastemaker.evaluate import Questions, Report, compare, pointwise
from tastemaker.evaluate.predictions import auc, ece, gauc, logloss, reliability, rmse, squared_error
from tastemaker.train import Ranking, Validation
from tastemaker.types import PARTS, CapabilityError, Dataset, NotFound, Requests, Split


@cache
def parts() -> Split:
    return split(synthetic(80, n_items=60, seed=4), "ratio:0.7,0.1,0.2", seed=1)


@system("oracle", family="ranking", title="Knows a share of the answers", paper="none", learns_from=())
class Oracle:
    """Predicts by a table of users and items, and remembers what it was asked."""

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, table: Any, tasks: tuple[str, ...] = ("choice",)) -> None:
        self.table, self._tasks = table, tasks
        self.asked: list[Requests] = []

    @property
    def tasks(self) -> tuple[str, ...]:
        return self._tasks

    def predict(self, requests: Requests, items: Any = None) -> Any:
        self.asked.append(requests)
        assert requests.users is not None and items is not None
        return np.repeat(self.table[requests.users[:, None], items][:, :, None], len(self._tasks), axis=2)

    def score(self, requests: Requests, items: Any = None) -> Any:
        return self.predict(requests, items)[:, :, 0]


class Scorer:
    """Scores, and predicts nothing."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def score(self, requests: Requests, items: Any = None) -> Any:
        assert requests.users is not None
        return self.table[requests.users[:, None], items]


def table(seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((81, 61)).astype(np.float32)


def test_metrics_are_those_of_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.3).astype(float)
    said = np.clip(np.round(0.3 * labels + 0.7 * rng.random(3000), 2), 0.01, 0.99)  # with many ties
    users = rng.integers(0, 70, 3000)
    labels[users == 3] = 1.0  # one label alone
    assert np.nanmean(auc(labels, said)) == pytest.approx(sk.roc_auc_score(labels, said), abs=1e-12)
    assert logloss(labels, said).mean() == pytest.approx(sk.log_loss(labels, said), abs=1e-12)
    assert rmse(labels, said) == pytest.approx(sk.mean_squared_error(labels, said) ** 0.5, abs=1e-12)
    assert squared_error(labels, said).mean() == pytest.approx(sk.brier_score_loss(labels, said), abs=1e-12)
    values = gauc(labels, said, users)
    for user in range(70):
        mine = users == user
        if user == 3:
            assert np.isnan(values[mine]).all(), "a user with one label alone has no AUC"
        else:
            assert values[mine] == pytest.approx(sk.roc_auc_score(labels[mine], said[mine]), abs=1e-12)
    sizes = np.bincount(users[users != 3], minlength=70)[np.arange(70) != 3]
    by_user = [sk.roc_auc_score(labels[users == u], said[users == u]) for u in range(70) if u != 3]
    assert np.nanmean(values) == pytest.approx(np.average(by_user, weights=sizes), abs=1e-12)
    observed, predicted = calibration.calibration_curve(labels, said + 1e-9, n_bins=10)
    bins = reliability(labels, said + 1e-9)
    np.testing.assert_allclose(bins["observed"], observed)
    np.testing.assert_allclose(bins["predicted"], predicted)
    gaps = np.abs(bins["observed"] - bins["predicted"]).to_numpy()
    assert ece(labels, said + 1e-9) == pytest.approx(np.average(gaps, weights=bins["n"].to_numpy()))


def test_a_calibrated_prediction_has_no_calibration_error() -> None:
    rng = np.random.default_rng(1)
    chance = rng.random(200_000)
    labels = (rng.random(200_000) < chance).astype(float)
    assert ece(labels, chance) < 0.01 < ece(labels, chance**2)


def test_the_report_holds_the_figures_of_its_questions(tmp_path: Path) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    report = pointwise(Oracle(table()), parts())
    questions = Questions.of(parts())
    said = table()[questions.asked, questions.rows.items]
    labels = questions.rows.labels[:, 0]
    assert report.n == len(questions) and not questions.drawn and 0 < labels.mean() < 1
    assert report["auc"] == pytest.approx(sk.roc_auc_score(labels, said), abs=1e-6)
    assert report["logloss"] == pytest.approx(sk.log_loss(labels, said.astype(np.float64)), abs=1e-6)
    assert report["rmse"] == pytest.approx(sk.mean_squared_error(labels, said) ** 0.5, abs=1e-6)
    low, high = report.intervals()["auc"]
    assert low < report["auc"] < high and report.protocol["kind"] == "pointwise"
    bins = report.slices.filter(pl.col("metric") == "observed")
    assert bins["n"].sum() == report.n and (bins["low"] <= bins["mean"]).all() and (bins["mean"] <= bins["high"]).all()
    again = Report.load(report.save(tmp_path / "report"))
    assert again["auc"] == report["auc"] and again.by_request().equals(report.by_request())
    assert report.by_request()["label choice"].to_list() == labels.tolist()
    best = compare([report, pointwise(Oracle(truth(questions)), parts(), name="told")], primary="auc")
    assert best.best == "told" and not best.tied("auc"), "who knows the answers leads, and the test says so"


def truth(questions: Questions) -> Any:
    told = table(1) * 0.2
    told[questions.asked, questions.rows.items] += 0.7 * questions.rows.labels[:, 0]
    return told


def test_questions_show_nothing_that_came_later() -> None:
    oracle = Oracle(table())
    pointwise(oracle, parts())
    (asked,) = oracle.asked
    data = parts().data
    assert asked.history is not None and asked.now is not None and asked.users is not None
    times = asked.history.values["time"]
    assert (times < np.repeat(asked.now, asked.history.lengths)).all()
    trained = parts().part == PARTS["train"]
    known = {(u, i, t) for u, i, t in data.events.filter(pl.Series(trained)).select("user", "item", "time").iter_rows()}
    shown = zip(np.repeat(asked.users, asked.history.lengths), asked.history.values["item"], times, strict=True)
    assert set(shown) <= known, "only the training part is shown"


def rated(n: int = 400) -> Dataset:
    rng = np.random.default_rng(3)
    events = pl.DataFrame(
        {
            "user": rng.integers(0, 20, n),
            "item": rng.integers(0, 30, n),
            "value": rng.integers(1, 6, n).astype(np.float32),
            "split": rng.choice(["train", "test"], n),
            "mood": rng.choice(["up", "down"], n),
        }
    )
    return build("rated", events)


def test_several_tasks_have_a_figure_each() -> None:
    data = split(rated(), "column:split")
    tasks = ("value", "value>=4")
    report = pointwise(Oracle(table(), tasks), data)
    labels = data.events("test")["value"].to_numpy()
    said = table()[data.events("test")["user"], data.events("test")["item"]]
    assert report["rmse[value]"] == pytest.approx(np.sqrt(((labels - said) ** 2).mean()), rel=1e-5)
    assert report["auc"] == pytest.approx(report["auc[value>=4]"], abs=1e-6) and "auc[value]" not in report.metrics
    assert report["rmse"] == pytest.approx((report["rmse[value]"] + report["rmse[value>=4]"]) / 2)


def test_context_comes_with_the_question_and_the_answer_does_not() -> None:
    oracle = Oracle(table(), ("value>=4",))
    pointwise(oracle, split(rated(), "column:split"))
    assert oracle.asked[0].context is not None and set(oracle.asked[0].context) == {"mood", "split"}


def test_choices_alone_get_items_drawn_beside_them() -> None:
    data = split(rated(), "column:split")
    report = pointwise(Oracle(table()), data)
    assert report.protocol["drawn"] > 0 and any("drawn at random" in warning for warning in report.warnings)
    questions = Questions.of(data, negatives=2)
    drawn = questions.rows.labels[:, 0] == 0
    assert drawn.sum() == questions.drawn == 2 * (~drawn).sum()
    chosen = set(data.data.events.select("user", "item").iter_rows())
    assert not chosen & set(zip(questions.rows.users[drawn], questions.rows.items[drawn], strict=True))


def test_scores_are_judged_by_their_order_alone() -> None:
    report = pointwise(Scorer(table() * 100 - 7), parts())
    assert set(report.metrics) == {"auc", "gauc"}
    assert report["auc"] == pytest.approx(pointwise(Oracle(table()), parts())["auc"], abs=1e-6)
    with pytest.raises(CapabilityError):
        pointwise(Scorer(table()), parts(), metrics=["logloss"])
    with pytest.raises(CapabilityError):
        pointwise(Oracle(table()), parts(), tasks=["value>=4"])
    with pytest.raises(NotFound):
        pointwise(Oracle(table()), parts(), metrics=["ndcg"])


def test_training_is_judged_by_the_protocol_of_its_metric() -> None:
    judge, oracle, scorer = Validation(parts()), Oracle(table()), Scorer(table())
    expected = pointwise(oracle, parts(), part="valid")
    assert judge(oracle, "auc") == pytest.approx(expected["auc"])
    assert judge(oracle, "logloss") == pytest.approx(-expected["logloss"]), "a judge's figure is better high"
    assert "ranking" not in vars(judge), "no list was asked for"

    class Full:
        def score(self, requests: Requests, items: Any = None) -> Any:
            rows = table()[requests.users, :60]
            return rows if items is None else np.take_along_axis(rows, np.maximum(items, 0), axis=1)

    full = Full()
    assert judge(full, "ndcg@10") == Ranking.of(parts())(full, "ndcg@10")
    assert judge(full, "auc") == Ranking.of(parts())(full, "auc"), "who predicts nothing is judged by whole rankings"
    assert isinstance(scorer, Scorer)
