"""HSTU over histories of very different lengths: ragged, padded to the longest, and a Transformer beside.

python benchmarks/hstu.py                       writes benchmarks/results/hstu.json
python benchmarks/hstu.py --rows 64 --longest 2048 --rounds 5 --threads 2

Lengths are log-normal (median 150, sigma 1.2) and end at `longest`, as histories in logs do. A step is one pass forward
and one back through the layers, from vectors of the events to vectors of the same shape; tables, losses and optimisers
are left out, since they cost all sides the same. "padded" is HSTU again, by the same kernel, on a rectangle: every row
is as long as the longest, as in code that knows no ragged batches. The Transformer has as many layers of the same width
and torch's scaled dot product attention, which pads within attention alone; it has no bias for time.

On a busy machine processor seconds are the steadier figure. The goal: padded takes at least 0.7 times as much longer
than ragged as it has more events.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from common import in_fresh_process, page_table, write

SIDES = ("hstu, ragged", "hstu, padded", "transformer, sdpa")
MEDIAN, SIGMA, GOAL = 150, 1.2, 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--longest", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    given = vars(parser.parse_args())
    environment = {name: str(given["threads"]) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    sides = {}
    for side in SIDES:
        done = in_fresh_process("hstu:steps", environment=environment, timeout=3600, side=side, **given)
        if "error" in done:
            raise SystemExit(f"{side}: {done['error']}")
        sides[side] = {**done["value"], "peak_mb": done["peak_mb"]}
    ragged, padded = (sides[side] for side in SIDES[:2])
    names = {"more_events": "events", "longer": "median_s", "longer_cpu": "median_cpu_s"}
    ratios = {name: round(padded[of] / ragged[of], 2) for name, of in names.items()}
    shares = {f"share{of}": round(ratios[f"longer{of}"] / ratios["more_events"], 2) for of in ("", "_cpu")}
    found = {**given, "sides": sides, **ratios, **shares}
    write("hstu", found, tables(found))
    print(ratios, shares, f"goal {GOAL}")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "side": side,
            "events": told["events"],
            "step, s": told["median_s"],
            "step, CPU s": told["median_cpu_s"],
            "events a second": round(found["sides"][SIDES[0]]["events"] / told["median_s"]),
            "peak MB": told["peak_mb"],
        }
        for side, told in found["sides"].items()
    ]
    title = f"Histories of log-normal lengths up to {found['longest']:,}, forward and back, {found['threads']} threads"
    note = (
        f"Padded has {found['more_events']} times the events and takes {found['longer']} times as long, in processor "
        f"seconds {found['longer_cpu']} times: {found['share']} and {found['share_cpu']} of it, the goal is {GOAL}. "
        "Events a second are real ones."
    )
    return [page_table(title, rows, note)]


def lengths_of(rows: int, longest: int) -> Any:
    import numpy as np

    drawn = np.exp(np.random.default_rng(0).normal(np.log(MEDIAN), SIGMA, rows)).astype(np.int64)
    lengths = np.clip(drawn, 1, longest)
    lengths[0] = longest
    return lengths


def steps(
    side: str, rows: int, longest: int, dim: int, layers: int, heads: int, rounds: int, threads: int, device: str
) -> dict[str, Any]:
    """Seconds of a step of one side."""
    import numpy as np
    import torch
    from common import measure

    from tastemaker.nn.jagged_attention import Sight
    from tastemaker.nn.ragged import Layout
    from tastemaker.nn.transformer import Transformer
    from tastemaker.systems.sequential.hstu import Layer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    lengths = lengths_of(rows, longest)
    if side == "hstu, padded":
        lengths = np.full_like(lengths, longest)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])).to(device)
    n = int(lengths.sum())
    x = torch.randn(n, dim, device=device, requires_grad=True)
    gaps = torch.exp(torch.randn(n, device=device) * 4 + 5).long()
    asked = gaps.cumsum(0)
    if side == "transformer, sdpa":
        model: Any = Transformer(dim, layers, heads, hidden=dim).to(device)
    else:
        model = torch.nn.ModuleList(Layer(dim, heads, longest, 0.0, near=True, timed=True) for _ in range(layers))
        model = model.to(device)

    def step() -> None:
        layout = Layout.of(offsets, longest, n)
        if side == "transformer, sdpa":
            out = model(x, layout)
        else:
            sight, out = Sight.causal(offsets, layout.columns, asked, asked - gaps), x
            for layer in model:
                out, _ = layer(out, sight)
        out.sum().backward()
        if device != "cpu":
            torch.cuda.synchronize()

    return {"events": n, **measure(step, rounds).to_json()}


if __name__ == "__main__":
    main()
