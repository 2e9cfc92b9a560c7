"""A training that is cut by time goes on from where it was, and ends as it would have ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tastemaker.data import split, synthetic
from tastemaker.train import fit
from tastemaker.train.bundle import export_state
from tastemaker.types import Split, UsageError

CONFIG = {"dim": 8, "epochs": 12, "patience": 50, "every": 1, "batch_size": 256}


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(synthetic(120, n_items=80, seed=2), "ratio:0.7,0.15,0.15")


def test_a_cut_training_goes_on_and_ends_the_same(parts: Split, tmp_path: Path) -> None:
    whole = fit("bpr-mf", parts, CONFIG)
    runs = []
    for _ in range(400):
        runs.append(fit("bpr-mf", parts, CONFIG, run=tmp_path / "run", seconds=0.02).about["training"][0])
        if runs[-1]["stopped"] != "out of time":
            break
    assert runs[0]["stopped"] == "out of time" and len(runs) > 1
    epochs = [run["epochs"] for run in runs]
    assert epochs == sorted(epochs) and epochs[-1] == 12
    rest = fit("bpr-mf", parts, CONFIG, run=tmp_path / "run")
    ours, theirs = export_state(rest.system), export_state(whole.system)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert not list(tmp_path.rglob("*.checkpoint"))
    assert rest.about["fit"]["seconds"] >= rest.about["training"][0]["seconds"] >= 0.02, "earlier processes count"


def test_known_epochs_are_trained_and_not_judged(parts: Split, tmp_path: Path) -> None:
    told = fit("bpr-mf", parts.train, CONFIG, epochs={0: 3}).about["training"]
    assert [run["epochs"] for run in told] == [3] and told[0]["metric"] is None
    fit("bpr-mf", parts.train, CONFIG, epochs={0: 3}, run=tmp_path / "run")
    with pytest.raises(UsageError, match="another"):
        fit("bpr-mf", parts.train, CONFIG, epochs={0: 4}, run=tmp_path / "run")


def test_what_is_judged_is_kept_where_there_is_no_time_to_train_again(parts: Split) -> None:
    """A second training that is cut at once would give weights that learnt nothing."""
    hurried = {**CONFIG, "epochs": 100_000, "patience": 100_000}
    told = fit("bpr-mf", parts.train, hurried, seconds=0.5).about["training"]
    assert len(told) == 1 and told[0]["stopped"] == "out of time"
