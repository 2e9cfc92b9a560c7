"""Tuning: the defaults first, validation data alone, nothing twice, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tastemaker.cli.app import app
from tastemaker.lab import tune
from tastemaker.train import fit
from tastemaker.types import CapabilityError, Dataset, NotFound, Part, Split, UsageError

pytest.importorskip("optuna", reason="tuning needs the extra tune")


class Sealed(Split):
    """A split whose test part must not be asked for."""

    def cases(self, part: Part = "test") -> Any:
        assert part != "test", "the test part was read"
        return super().cases(part)

    def events(self, part: Part) -> Any:
        assert part != "test", "the test part was read"
        return super().events(part)


def sealed(parts: Split) -> Sealed:
    return Sealed(**{name: getattr(parts, name) for name in Split.__dataclass_fields__})


def test_the_planted_setting_is_found_and_the_defaults_come_first(fakes: Any, parts: Split) -> None:
    found = tune(fakes["tilted"], sealed(parts), trials=12)
    assert found.trials[0].settings == {"power": -1.0, "shape": 1}
    assert found.best.settings["power"] > 0 > found.trials[0].settings["power"]
    assert found.value > 3 * found.to_json()["default_value"]
    assert found.to_json()["importance"]["power"] > 0.8, "what does nothing was found to matter"
    assert len(found.trials) == 12 and len(fakes["tilted"].fits) == 12
    assert "valid part" in found.judged_on


def test_without_a_valid_part_events_are_held_back(fakes: Any, catalogue: Dataset) -> None:
    found = tune(fakes["tilted"], catalogue, trials=2)
    assert "held back" in found.judged_on
    assert found.fit(catalogue).about["data"]["events"] == catalogue.n_events


def test_the_same_seed_proposes_the_same(fakes: Any, parts: Split) -> None:
    first, second = (tune(fakes["tilted"], parts, trials=11, seed=3) for _ in range(2))
    other = tune(fakes["tilted"], parts, trials=11, seed=4)
    settings = [[t.settings for t in one.trials] for one in (first, second, other)]
    assert settings[0] == settings[1] != settings[2]


@pytest.mark.parametrize("after", [0, 10])
def test_a_killed_search_goes_on_and_repeats_nothing(fakes: Any, parts: Split, tmp_path: Path, after: int) -> None:
    tilted, storage = fakes["tilted"], tmp_path / "trials.db"
    whole = tune(tilted, parts, trials=12)
    tilted.fits.clear()
    tilted.stop_after = after
    with pytest.raises(KeyboardInterrupt):
        tune(tilted, parts, trials=12, storage=storage)
    tilted.stop_after = None
    rest = tune(tilted, parts, trials=12, storage=storage)
    assert [t.settings for t in rest.trials] == [t.settings for t in whole.trials]
    assert len(tilted.fits) == 12
    tune(tilted, parts, trials=12, storage=storage)
    assert len(tilted.fits) == 12, "a finished search was made again"
    more = tune(tilted, parts, trials=14, storage=storage)
    assert len(tilted.fits) == 14 and more.trials[:12] == rest.trials


def test_a_file_holds_several_searches(fakes: Any, parts: Split, tmp_path: Path) -> None:
    storage = tmp_path / "trials.db"
    tune(fakes["tilted"], parts, trials=3, storage=storage)
    other = tune(fakes["tilted"], parts, trials=2, storage=storage, metric="recall@5")
    assert len(other.trials) == 2 and len(fakes["tilted"].fits) == 5


def test_a_failing_trial_is_recorded_and_the_search_goes_on(fakes: Any, parts: Split) -> None:
    tilted = fakes["tilted"]
    found = tune(tilted, parts, trials=4, fixed={"shape": 9})
    assert found.trials[0].outcome.state == "failed" and "tilted too far" in found.trials[0].outcome.reason
    assert [t.outcome.state for t in found.trials[1:]] == ["done"] * 3
    assert found.settings["shape"] == 9
    with pytest.raises(CapabilityError, match="tilted too far"):
        tune(tilted, parts, trials=3, fixed={"shape": 9, "power": -1.0})


def test_a_worse_curve_is_stopped(fakes: Any, parts: Split) -> None:
    """The value is the same in every epoch, so all that lie below the median go after one; they give no value."""
    found = tune(fakes["stepwise"], parts, trials=14)
    pruned = [t for t in found.trials if t.outcome.state == "pruned"]
    assert pruned and all(t.settings["power"] < found.best.settings["power"] for t in pruned)
    assert all("median" in t.outcome.reason and t.outcome.value is None for t in pruned)
    epochs = fakes["stepwise"].epochs
    assert all(epochs.count(t.settings["power"]) == 1 for t in pruned)
    assert epochs.count(1.0) == 6, "the defaults were not spared"
    epochs.clear()
    tune(fakes["stepwise"], parts, trials=6, prune=False)
    assert len(epochs) == 36


def test_time_is_a_budget_too(fakes: Any, parts: Split) -> None:
    fakes["tilted"].seconds = 0.2
    found = tune(fakes["tilted"], parts, budget="1s")
    assert 1 <= len(found.trials) <= 5 and found.seconds >= 1.0
    assert tune(fakes["tilted"], parts, budget=0.01).trials[0].settings["power"] == -1.0


def test_a_space_without_anything_new_ends_the_search(parts: Split) -> None:
    assert len(tune("random", parts, trials=9).trials) == 1


def test_comparisons_see_the_search(fakes: Any, parts: Split) -> None:
    found = tune(fakes["tilted"], parts, trials=3, fixed={"power": 0.5})
    bundle = found.fit(parts)
    assert bundle.about["tuning"] == {"trials": 3, "seconds": round(found.seconds)}
    report = found.test(bundle, parts)
    assert report.system["tuning"]["trials"] == 3 and report.split["part"] == "test"
    plain = fit("popularity", parts)
    assert report.value("ndcg@10") == pytest.approx(found.test(plain, parts).value("ndcg@10"))


def test_what_cannot_be_searched_is_said(parts: Split) -> None:
    with pytest.raises(UsageError, match="neither better"):
        tune("popularity", parts, metric="arp@10")
    with pytest.raises(NotFound, match="metric"):
        tune("popularity", parts, metric="ndgc@10")
    with pytest.raises(UsageError, match="at least one trial"):
        tune("popularity", parts, trials=0)


def test_the_command(tmp_path: Path, catalogue: Dataset) -> None:
    data, out = tmp_path / "data", tmp_path / "best"
    catalogue.save(data)
    command = ["tune", "itemknn", str(data), "--split", "leave-one-out", "--trials", "4", "--set", "centred=false"]
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--test", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["system"] == "itemknn" and len(found["trials"]) == 4
    assert found["trials"][0]["settings"]["neighbours"] == 100 and "centred" not in found["trials"][0]["settings"]
    assert found["settings"]["centred"] is False
    assert found["test"]["figures"]["ndcg@10"]["n"] == 120
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["about"]["tuning"]["trials"] == 4 and manifest["config"] == found["settings"]
    assert (tmp_path / "best.tuning.db").is_file()
    shown = CliRunner().invoke(app, [*command, "--out", str(out)], catch_exceptions=False).stdout
    assert "best settings by ndcg@10" in shown and "4 trials" in shown and "recommend" in shown
