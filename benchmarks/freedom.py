"""An epoch of FREEDOM on Amazon Scientific: ours beside the arithmetic of the authors' code, in plain torch.

"As published" smooths every node in every layer for each batch with torch's sparse product, multiplies the whole item
graph, draws the edges of an epoch by torch.multinomial, and moves all rows of everything by Adam, the vectors of
content too. Both sides take the same batches, weights, widths and rate; each runs in a process of its own, in turn.

python benchmarks/freedom.py                 writes benchmarks/results/freedom.json
"""

from __future__ import annotations

import argparse
from typing import Any

from common import data_folder, in_fresh_process, measure, page_table, write

SETTINGS = {"columns": "text_vector, image_vector", "shares": "0.9, 0.1"}
SIDES = {"tastemaker": "freedom:ours", "as published": "freedom:published"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each side")
    rounds = parser.parse_args().rounds
    if data_folder("amazon-scientific-clip") is None:
        raise SystemExit("Amazon Scientific is not there: set TASTEMAKER_DATA to the folder of data sets")
    runs = {side: in_fresh_process(function, rounds=rounds) for side, function in SIDES.items()}
    for side, run in runs.items():
        if "error" in run:
            raise SystemExit(f"{side}: {run['error']}")
    ours, theirs = (runs[side]["value"] for side in SIDES)
    rows = [
        {
            "side": side,
            "seconds an epoch": run["value"]["epoch"]["median_s"],
            "CPU s an epoch": run["value"]["epoch"]["median_cpu_s"],
            "loss of the first epoch": run["value"]["loss"],
            "peak MB": run["peak_mb"],
        }
        for side, run in runs.items()
    ]
    ratio = {clock: round(theirs["epoch"][clock] / ours["epoch"][clock], 2) for clock in ("median_s", "median_cpu_s")}
    note = f"{ours['steps']} steps of 2,048 choices. Ours is {ratio['median_cpu_s']:g} times as quick by CPU seconds."
    found = {"rounds": rounds, "sides": runs, "times": ratio}
    write("freedom", found, [page_table("FREEDOM, an epoch on Amazon Scientific", rows, note)])


def prepared() -> tuple[Any, Any]:
    """A system and its training stage."""
    import torch

    from tastemaker.contracts import find
    from tastemaker.lab.recipes import named, prepare
    from tastemaker.types import make_config

    data = prepare(named("amazon-scientific-clip"), data_folder("amazon-scientific-clip")).train
    info = find("freedom")
    torch.manual_seed(0)
    system = info.cls(make_config(info.config, SETTINGS), data.schema)
    program, sent = system.program(data), None
    while True:
        stage = program.send(sent)
        if hasattr(stage, "feed"):
            return system, stage
        sent = stage.function(*stage.args, **stage.kwargs)


def ours(rounds: int) -> dict[str, Any]:
    import torch

    from tastemaker.feeds import tensors
    from tastemaker.nn.row_adam import RowAdam

    system, stage = prepared()
    lazy = list(system.content.parameters())
    rest = [p for p in system.parameters() if p is not lazy[0]]
    rules = [torch.optim.Adam(rest, lr=1e-3, fused=True), RowAdam(lazy, lr=1e-3, betas=(0.9, 0.999))]
    return timed(system, stage, rules, lambda batch: stage.objective(stage.gather(batch), batch), rounds, tensors)


def published(rounds: int) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F
    from torch import nn

    from tastemaker.feeds import tensors

    system, stage = prepared()
    widths = [source.width for source in system.sources]
    features = nn.ParameterList(nn.Parameter(part.clone()) for part in system.content.weight.detach().split(widths, 1))
    n_users, n = system.n_users, len(system.table.weight)
    matrix = system.matrix.tocoo()
    pairs = torch.tensor([matrix.row, matrix.col], dtype=torch.int64)
    graph = system.item_graph
    rows = torch.repeat_interleave(torch.arange(graph.shape[0]), graph.degrees())
    items_alike = torch.sparse_coo_tensor(torch.stack([rows, graph.indices.long()]), graph.values, graph.shape)
    items_alike = items_alike.coalesce()
    kept: list[Any] = [None]

    def weights(chosen: Any) -> Any:
        by_user = torch.bincount(chosen[0], minlength=n_users).clamp(min=1).float()
        by_item = torch.bincount(chosen[1], minlength=graph.shape[0]).clamp(min=1).float()
        return (by_user[chosen[0]] * by_item[chosen[1]]).rsqrt()

    def every_epoch(epoch: int) -> None:
        size = int((1 - system.config.thinned) * pairs.shape[1])
        chosen = pairs[:, torch.multinomial(weights(pairs), size)]
        both = torch.cat(
            [chosen + torch.tensor([[0], [n_users]]), (chosen + torch.tensor([[0], [n_users]])).flip(0)], 1
        )
        kept[0] = torch.sparse_coo_tensor(both, weights(chosen).repeat(2), (n, n)).coalesce()

    def loss(batch: Any) -> Any:
        x = system.table.weight
        layers = [x]
        for _ in range(system.config.n_layers):
            layers.append(torch.sparse.mm(kept[0], layers[-1]))
        mean = torch.stack(layers, dim=1).mean(dim=1)
        final = mean[n_users:] + torch.sparse.mm(items_alike, x[n_users:])
        users, positive, negative = mean[batch.users], batch.items, batch.negatives[:, 0]

        def bpr(table: Any) -> Any:
            return -F.logsigmoid((users * table[positive]).sum(1) - (users * table[negative]).sum(1))

        total = bpr(final)
        for one, layer in zip(features, system.maps, strict=True):
            total = total + system.config.content * bpr(layer(one))
        return total

    moved = [system.table.weight, *system.maps.parameters(), *features]
    object.__setattr__(stage, "every_epoch", every_epoch)
    return timed(system, stage, [torch.optim.Adam(moved, lr=1e-3)], loss, rounds, tensors)


def timed(system: Any, stage: Any, rules: Any, loss: Any, rounds: int, tensors: Any) -> dict[str, Any]:
    """Seconds of epochs with this loss, and the mean loss of the first."""
    feed, means, turn = stage.feed, [], iter(range(10**6))

    def epoch() -> None:
        number = next(turn)
        stage.every_epoch(number)
        total = 0.0
        for place in range(len(feed)):
            batch = tensors(feed.batch(number, place), "cpu")
            for rule in rules:
                rule.zero_grad(set_to_none=True)
            mean = loss(batch).mean()
            mean.backward()
            for rule in rules:
                rule.step()
            total += mean.item()
        means.append(total / len(feed))

    timing = measure(epoch, rounds).to_json()
    return {"epoch": timing, "loss": round(means[0], 5), "steps": len(feed)}


if __name__ == "__main__":
    main()
