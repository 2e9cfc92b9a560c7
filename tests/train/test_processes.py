"""Two processes train what one would have trained, but for rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tastemaker.data import split, synthetic
from tastemaker.train import fit
from tastemaker.train.bundle import export_state

CONFIG = {"dim": 16, "batch_size": 64, "epochs": 4, "every": 2, "lr": 0.01, "patience": 5}
WORKER = """
import sys
import numpy as np
from tastemaker.data import split, synthetic
from tastemaker.train import fit
from tastemaker.train.bundle import export_state
from tastemaker.train.run import is_first_process
parts = split(synthetic(120, n_items=80, seed=2), "ratio:0.7,0.15,0.15")
bundle = fit("bpr-mf", parts, {config!r}, seed=3, run={run!r}, checkpoint_seconds=0)
name = "first" if is_first_process() else "second"
np.savez({out!r} + name + ".npz", best=bundle.about["training"][0]["best"], **export_state(bundle.system))
"""


@pytest.mark.timeout(250)
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(config=CONFIG, run=str(tmp_path / "run"), out=str(tmp_path) + "/"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    done = subprocess.run(
        [*command, "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = split(synthetic(120, n_items=80, seed=2), "ratio:0.7,0.15,0.15")
    alone = fit("bpr-mf", parts, CONFIG, seed=3)
    with np.load(tmp_path / "first.npz") as first, np.load(tmp_path / "second.npz") as second:
        for name, value in export_state(alone.system).items():
            assert np.array_equal(first[name], second[name]), "processes disagree"
            np.testing.assert_allclose(first[name], value, atol=2e-4)
        assert float(first["best"]) == pytest.approx(alone.about["training"][0]["best"], abs=0.01)
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"end"') == 1, "one process speaks"
