"""The command line does what its help says, and fails as documented."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TASTEMAKER = [sys.executable, "-c", "from tastemaker.cli import main; main()"]


def tastemaker(*arguments: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
    command = [*TASTEMAKER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=cwd, env=environment, check=False)
    assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset, a split and a bundle, made by the commands."""
    folder = tmp_path_factory.mktemp("home")
    tastemaker("data", "synthetic", "--out", folder / "data", "--users", 200, "--items", 120, "--seed", 4)
    tastemaker("data", "split", folder / "data", "leave-one-out", "--name", "main")
    tastemaker("fit", "ease", folder / "data", "--split", "main", "--set", "reg=50", "--out", folder / "ease")
    return folder


def test_help_names_every_command() -> None:
    text = tastemaker("--help").stdout
    commands = "demo choose data systems fit tune evaluate compare recommend recipe doctor"
    for command in commands.split():
        assert command in text
    assert "Exit codes" in text
    for command in (["data", "import"], ["fit"], ["compare"], ["recipe", "run"]):
        assert "Usage" in tastemaker(*command, "--help").stdout


def test_systems_lists_and_filters(home: Path) -> None:
    listed = json.loads(tastemaker("systems", "--json").stdout)
    assert {"ease", "itemknn", "popularity"} <= {row["name"] for row in listed}
    assert all(row["title"] and row["settings"] is not None for row in listed)
    able = json.loads(tastemaker("systems", "--json", "--for", home / "data").stdout)
    assert {row["name"] for row in able} <= {row["name"] for row in listed}
    assert "there is no system" not in tastemaker("systems", "zz*", code=2).stdout


def test_a_trained_system_with_a_transform(home: Path, tmp_path: Path) -> None:
    listed = json.loads(tastemaker("transforms", "--json").stdout)
    assert "apr" in {row["name"] for row in listed}
    settings = ["--set", "epochs=4", "--set", "dim=8", "--set", "every=2", "--set", "apr.epsilon=0.25"]
    where = ["--split", "main", "--out", tmp_path / "b", "--run", tmp_path / "run"]
    done = tastemaker("fit", "bpr-mf", home / "data", *where, "--with", "apr", *settings, "--verbose", "--json")
    about = json.loads(done.stdout)
    assert about["transforms"]["apr"]["epsilon"] == 0.25 and about["training"][0]["epochs"] == 4
    assert "evaluation" in done.stderr and (tmp_path / "run" / "log.jsonl").is_file()
    again = tastemaker("fit", "bpr-mf", home / "data", *where, "--with", "apr", *settings, "--json")
    assert json.loads(again.stdout)["training"] == about["training"], "a finished run is not trained again"
    assert "apr" in tastemaker("fit", "bpr-mf", home / "data", "--out", tmp_path / "c", "--with", "app", code=2).stderr
    assert (
        "no device"
        in tastemaker("fit", "bpr-mf", home / "data", "--out", tmp_path / "c", "--device", "cuda:9", code=2).stderr
    )


def test_fit_evaluate_recommend(home: Path) -> None:
    report = json.loads(tastemaker("evaluate", home / "ease", home / "data", "--split", "main", "--json").stdout)
    assert report
    out = home / "report.html"
    tastemaker("evaluate", home / "ease", home / "data", "--split", "main", "--out", out)
    assert "<html" in out.read_text()[:500].lower()
    users = json.loads(tastemaker("recommend", home / "ease", "--user", _first_user(home), "-k", 3, "--json").stdout)
    assert [row["rank"] for row in users] == [1, 2, 3]
    history = ",".join(str(row["item"]) for row in users[:2])
    fresh = json.loads(tastemaker("recommend", home / "ease", "--history", history, "-k", 4, "--json").stdout)
    assert len(fresh) == 4 and not {row["item"] for row in fresh} & set(history.split(","))


def _first_user(home: Path) -> str:
    import polars as pl

    return str(pl.read_parquet(home / "ease" / "users.parquet")["user"][0])


def test_evaluating_what_it_learnt_from_is_warned_of(home: Path) -> None:
    tastemaker("fit", "popularity", home / "data", "--out", home / "all")
    report = json.loads(tastemaker("evaluate", home / "all", home / "data", "--split", "main", "--json").stdout)
    assert any("learn" in warning for warning in report["warnings"])


def test_compare_writes_a_page(home: Path) -> None:
    out = home / "compare.html"
    done = tastemaker("compare", home / "data", "popularity", "ease", "--split", "main", "-k", 10, "--out", out)
    assert "ease" in done.stdout and "popularity" in done.stdout
    page = out.read_text()
    assert "ease" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_import_describe(tmp_path: Path) -> None:
    csv = tmp_path / "events.csv"
    rows = [f"u{n % 7},i{n % 11},{n % 5 + 1},{1_600_000_000 + n}" for n in range(200)]
    csv.write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    found = json.loads(tastemaker("data", "import", csv, "--out", tmp_path / "d", "--json").stdout)
    assert (found["users"], found["items"], found["events"]) == (7, 11, 200)
    assert json.loads(tastemaker("data", "describe", tmp_path / "d", "--json").stdout)
    assert "density" in tastemaker("data", "describe", tmp_path / "d").stdout.lower()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fit", "eese", "DATA", "--out", "x"], 2, "did you mean 'ease'"),
        (["fit", "ease", "no-such-data", "--out", "x"], 2, "there is no dataset"),
        (["fit", "ease", "DATA", "--set", "rge=1", "--out", "x"], 2, "no setting 'rge'"),
        (["fit", "ease", "DATA", "--set", "reg", "--out", "x"], 2, "NAME=VALUE"),
        (["recommend", "no-such-bundle", "--user", "1"], 2, "there is no bundle"),
        (["evaluate", "BUNDLE", "DATA", "--split", "main", "-k", "ten"], 2, "whole numbers"),
        (["compare", "DATA", "--split", "no-such-split"], 2, "split"),
        (["fit"], 2, "Missing argument"),
        (["data", "import", "no-such.csv", "--out", "x"], None, "no-such.csv"),
        (["recipe", "run", "gowala"], 2, "gowalla"),
    ],
)
def test_wrong_usage_is_explained(
    home: Path, arguments: list[str], code: int | None, said: str, tmp_path: Path
) -> None:
    named = [{"DATA": str(home / "data"), "BUNDLE": str(home / "ease")}.get(a, a) for a in arguments]
    recipes = Path(__file__).resolve().parents[2] / "recipes"
    where = ["--recipes", str(recipes)] if arguments[:2] == ["recipe", "run"] else []
    done = subprocess.run(
        [*TASTEMAKER, *named, *where], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert done.returncode in ((code,) if code else (2, 3)), done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_bad_data_has_its_own_exit_code(tmp_path: Path) -> None:
    csv = tmp_path / "events.csv"
    csv.write_text("user_id,item_id,rating\nu1,i1,5\nu2,,4\nu3,i3,many\n")
    done = tastemaker("data", "import", csv, "--out", tmp_path / "d", code=3)
    assert "events.csv:3" in done.stderr and "events.csv:4" in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_damaged_bundle_has_its_own_exit_code(home: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(home / "ease", tmp_path / "broken")
    (broken / "weights.safetensors").write_bytes(b"nonsense")
    assert "not the file that the manifest describes" in tastemaker("recommend", broken, "--user", "1", code=5).stderr


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path) -> None:
    command = [*TASTEMAKER, "data", "synthetic", "--out", str(tmp_path / "big"), "--users", "200000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.iterdir()):
        time.sleep(0.05)  # until it has begun to write
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nothing is left half-written" in said
    assert not list(tmp_path.iterdir())


def test_doctor_finds_this_installation_whole() -> None:
    found = json.loads(tastemaker("doctor", "--json").stdout)
    assert all(row["state"] in ("ok", "absent") for row in found["checks"])


def test_version() -> None:
    from tastemaker import __version__

    assert tastemaker("--version").stdout.strip() == __version__
