"""An audit: one system, attacked in several ways, with and without defences, over paired seeds.

A seed settles the targets, the fake profiles, and every random stream of training; so for a seed all attacks aim at the
same items, and all defences meet the same fake users. Differences are taken seed by seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tastemaker.audit.arms import NONE, Defence, attacks_of, defences_of, settings_of
from tastemaker.audit.measure import reach
from tastemaker.audit.poison import Attack, Budget, Ints, Poisoned, Seen, poison, unpopular
from tastemaker.audit.report import Audit, Record
from tastemaker.contracts import find, info_of
from tastemaker.evaluate import evaluate
from tastemaker.train import Hardware, fit
from tastemaker.train.codec import content_key
from tastemaker.train.run import Ranking
from tastemaker.types import (
    Dataset,
    Part,
    Split,
    UsageError,
    config_to_json,
    make_config,
    progress,
    replace_file,
)
from tastemaker.types.meter import machine

ACCURACY = ("ndcg", "recall")


def audit(
    system: str | type,
    split: Split,
    attacks: Sequence[str | Attack] | Mapping[str, Attack] = ("random", "bandwagon", "dp"),
    defences: Sequence[str] | Mapping[str, Defence] = (),
    seeds: Iterable[int] = range(5),
    *,
    config: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    k: int = 50,
    ks: int = 20,
    part: Part = "test",
    hardware: Hardware | None = None,
    out: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Audit:
    """Fit a system on clean and on poisoned training data, with and without defences, and say what came of it.

    Attackers see the training part alone. Training is stopped by the split's valid part, which no attack reaches,
    or where there is none by events held back, fake ones among them.

    Args:
        attacks: names, perhaps with settings ("bandwagon:popular=0.3"), or `Attack`s by label.
        defences: transforms by name ("vat", "vat:magnitude=uniform", "apr+vat"), or by label their settings. A run
            without any is always made.
        k: cut-off of the target metrics; ks: that of accuracy.
        part: on which real users' accuracy is measured.
        out: a folder in which finished runs are kept, so that the same call goes on there, and the report is written.
        tell: is told of every run.
    """
    info = find(system) if isinstance(system, str) else info_of(system)
    settings = config_to_json(make_config(info.config, config, of=info.name))
    kinds, arms = attacks_of(attacks), {NONE: {}, **defences_of(defences)}
    budget, numbers = budget or Budget(), list(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise UsageError(f"an audit needs seeds, each once, got {numbers}")
    folder = None if out is None else Path(out)
    key = content_key(info.name, info.version, settings, split.part, split.data, asdict(budget), k, ks, part)
    cases, seen = split.cases(part), Seen.of(split.train)
    records: list[Record] = []

    def run(label: str, arm: str, seed: int, targets: Ints, poisoned: Poisoned | None) -> Record:
        data, judge = split.train if poisoned is None else poisoned.data, None
        if split.sizes["valid"]:
            judge = Ranking.of(split, seed)
        how: dict[str, Any] = {"seed": seed, "judge": judge, "histories": False, "hardware": hardware}
        bundle = fit(info.cls, data, config, transforms=arms[arm], **how)
        found = reach(bundle.retriever, split, targets, k=k, seed=seed)
        names = [f"{name}@{ks}" for name in ACCURACY]
        report = evaluate(bundle, cases, train=split.train, metrics=names, slices=())
        of_targets = {f"target_hit_rate@{k}": found.hit_rate, f"target_ndcg@{k}": found.ndcg}
        ids = map(str, split.train.item_ids.ids(targets))
        return Record(
            attack=label,
            defence=arm,
            seed=seed,
            metrics={**of_targets, **{name: report.value(name) for name in names}},
            targets=dict(zip(ids, found.hit_rates.tolist(), strict=True)),
            cost=None if poisoned is None else asdict(poisoned.cost),
            epochs=[told["best_epoch"] for told in bundle.about.get("training", ())],
            seconds=round(bundle.about["fit"]["seconds"], 3),
        )

    jobs = [(seed, label) for seed in numbers for label in (NONE, *kinds)]
    with progress(f"audit {info.name}", len(jobs) * len(arms)) as advance:
        for seed, label in jobs:
            targets, poisoned = unpopular(seen, budget, seed), None
            for arm, transforms in arms.items():
                made = [settings_of(kinds[label]) if label in kinds else None, transforms, seed]
                file = None if folder is None else folder / "runs" / f"{content_key(key, made)}.json"
                if file is not None and file.is_file():
                    kept = Record(**json.loads(file.read_text(encoding="utf-8")))
                    records.append(replace(kept, attack=label, defence=arm))
                    advance(1)
                    continue
                if label in kinds and poisoned is None:
                    poisoned = poison(split.train, kinds[label], budget, targets=targets, seed=seed)
                    if folder is not None:
                        poisoned.save(folder / "profiles" / f"{_slug(label)}-{seed}.json")
                records.append(run(label, arm, seed, targets, poisoned))
                if file is not None:
                    with replace_file(file) as fresh:
                        text = json.dumps(asdict(records[-1]), ensure_ascii=False)
                        fresh.write_text(text + "\n", encoding="utf-8")
                if tell is not None:
                    tell(records[-1].line)
                advance(1)
    audited = Audit(
        system=info.name,
        config=settings,
        where=f"{split.data.name}, {split.name}",
        budget=asdict(budget),
        attacks={label: settings_of(one) for label, one in kinds.items()},
        defences={label: transforms for label, transforms in arms.items() if label != NONE},
        records=tuple(records),
        about={"split": dict(split.spec), "data": _about(split.data), "part": part, "machine": machine()},
    )
    if folder is not None:
        audited.save(folder)
    return audited


def _about(data: Dataset) -> dict[str, Any]:
    return {"name": data.name, "fingerprint": data.fingerprint, "users": data.n_users, "items": data.n_items}


def _slug(label: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in label)
