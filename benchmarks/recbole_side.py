"""RecBole's model and batches on pairs of ours; runs in RecBole's environment."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any


def prepared(name: str, users: Any, items: Any, **settings: Any) -> tuple[Any, Any, Any]:
    """RecBole's configuration, training batches and untrained model `name` for pairs of users and items."""
    import pandas as pd
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, init_seed

    place = tempfile.mkdtemp()  # it writes there for as long as the process lives
    atexit.register(shutil.rmtree, place, True)
    os.chdir(place)
    (Path(place) / "data").mkdir()
    table = pd.DataFrame({"user_id:token": users, "item_id:token": items})
    for part, rows in (("train", table), ("valid", table[:1000]), ("test", table[:1000])):
        rows.to_csv(f"data/data.{part}.inter", sep="\t", index=False)
    common = {
        "data_path": place,
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "checkpoint_dir": place,
        "gpu_id": "",
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    config = Config(model=name, dataset="data", config_dict={**common, **settings})
    init_seed(config["seed"], True)
    train, _, _ = data_preparation(config, create_dataset(config))
    return config, train, get_model(name)(config, train.dataset)
