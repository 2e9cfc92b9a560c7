"""Constrained beam search: masks and selection beside a dictionary for each beam, and what they add to a whole search.

python benchmarks/decoding.py                   writes benchmarks/results/decoding.json
python benchmarks/decoding.py --requests 64 --beams 20 --items 100000 --threads 1

"masks and selection": the system is a table of log-probabilities made beforehand, so that nothing else is timed. The
reference is what published code does: a dictionary from a beginning to the codes that may follow, looked up for each
beam, which opens them in a mask over the codes of the level; then the best of all beams. Both are given the same
numbers and must find the same items. With rules, every request leaves out 50 items, and a filter allows half of the
rest; the reference then has a dictionary for each request, whose making is timed as ours is.

"whole search": an encoder-decoder of two and two blocks, 128 wide, reads 20 items and writes the best; against the
same without a tree, where any code may follow any other. Rounds take turns.
"""

from __future__ import annotations

import argparse
import os
from statistics import median
from typing import Any

from common import interleave, page_table, write

LEVELS, SIZE = 3, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    sides, ratios = selection(given)
    more, further = whole(given)
    found: dict[str, Any] = {**vars(given), "sides": {**sides, **more}, "ratios": {**ratios, **further}}
    write("decoding", found, tables(found))
    print(found)


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    about = (
        f"{found['requests']} requests, {found['beams']} beams, {found['items']:,} items, {found['threads']} threads"
    )
    rows = [{"": name, "ms": round(1000 * told["median_s"], 2)} for name, told in found["sides"].items()]
    ratios = ", ".join(f"{name}: {value}" for name, value in found["ratios"].items())
    return [page_table(f"Constrained beam search: {about}", rows, note=ratios)]


def catalogue(n_items: int) -> Any:
    """Codes of items in clusters, as texts give them, and a digit."""
    import numpy as np

    from tastemaker.nn.quantise import with_digit

    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(SIZE, 0.5))
    first = rng.choice(SIZE, n_items, p=shares)
    rest = (first[:, None] * 37 + rng.geometric(0.03, (n_items, LEVELS - 1))) % SIZE
    return with_digit(np.column_stack([first, rest]), SIZE, SIZE)


class Fixed:
    """Log-probabilities made beforehand: of each level for as many beginnings as there are, whatever they are."""

    def __init__(self, tables: Any) -> None:
        self.tables, self.level = tables, 0

    def __call__(self, rows: Any = None, codes: Any = None) -> Any:
        width = 1 if rows is None else rows.shape[1]
        self.level += 1
        return self.tables[self.level - 1][:, :width]


def by_dictionary(tables: Any, follows: Any, items: Any, beams: int) -> tuple[list[list[int]], Any]:
    """Masks from a dictionary, beam by beam, and the best of all beams of each request."""
    import torch

    b, width = len(tables[0]), 1
    prefixes: list[list[tuple[int, ...]]] = [[()] for _ in range(b)]
    scores = torch.zeros(b, 1)
    for table in tables:
        logp = table[:, :width]
        mask = torch.full_like(logp, -torch.inf)
        for row in range(b):
            for n, prefix in enumerate(prefixes[row]):
                if open_codes := follows[row].get(prefix):
                    mask[row, n, open_codes] = 0
        values = (scores.unsqueeze(-1) + logp + mask).flatten(1)
        scores, place = values.topk(min(beams, values.shape[1]), dim=1)
        parents, codes = (place // SIZE).tolist(), (place % SIZE).tolist()
        prefixes = [[(*prefixes[row][p], c) for p, c in zip(parents[row], codes[row], strict=True)] for row in range(b)]
        width = len(prefixes[0])
    return [[items.get(prefix, -1) for prefix in row] for row in prefixes], scores


def dictionary(codes: Any) -> dict[tuple[int, ...], list[int]]:
    """From each beginning to the codes that may follow."""
    follows: dict[tuple[int, ...], set[int]] = {}
    for row in codes.tolist():
        for q in range(len(row)):
            follows.setdefault(tuple(row[:q]), set()).add(row[q])
    return {prefix: sorted(open_codes) for prefix, open_codes in follows.items()}


def selection(given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, float]]:
    import numpy as np
    import torch

    from tastemaker.nn.decoding import Limits, Tree, search
    from tastemaker.types import ItemFilter, Jagged, Requests, Trie

    b, beams, codes = given.requests, given.beams, catalogue(given.items)
    torch.manual_seed(0)
    logits = [torch.randn(b, beams, SIZE) * 2 for _ in range(codes.shape[1])]
    probabilities = [torch.log_softmax(one, dim=-1) for one in logits]
    trie = Trie.of(codes)
    tree, follows = Tree.of(trie), dictionary(codes)
    items = {tuple(row): n for n, row in enumerate(codes.tolist())}
    rng = np.random.default_rng(1)
    seen = [rng.choice(given.items, 50, replace=False) for _ in range(b)]
    allowed = rng.random((1, given.items)) < 0.5
    requests = Requests(
        b, exclude=Jagged.from_lists(seen, dtype=np.int32), filter=ItemFilter(allowed, np.zeros(b, dtype=np.int32))
    )

    def ours(limits: Limits | None = None) -> Any:
        return search(Fixed(probabilities), tree, beams, beams, limits)

    def theirs_with_rules() -> Any:
        kept = []
        for row in range(b):
            open_to = allowed[0].copy()
            open_to[seen[row]] = False
            kept.append(dictionary(codes[open_to]))
        return by_dictionary(probabilities, kept, items, beams)

    plain, ruled = "masks and selection", "masks and selection, rules"
    sides = {
        plain: ours,
        f"{plain}, a dictionary": lambda: by_dictionary(probabilities, [follows] * b, items, beams),
        ruled: lambda: ours(Limits.of(requests, trie)),
        f"{ruled}, dictionaries": theirs_with_rules,
    }
    pairs = (plain, f"{plain}, a dictionary"), (ruled, f"{ruled}, dictionaries")
    for name, reference in pairs:
        found, (lists, scores) = sides[name](), sides[reference]()
        assert found.items.tolist() == lists and torch.allclose(found.scores, scores), "both must find the same"
    fast = interleave({name: sides[name] for name in (plain, f"{plain}, a dictionary", ruled)}, given.rounds)
    slow = interleave({name: side for name, side in sides.items() if name not in fast}, 2, warm_up=0)
    times = {**fast, **slow}
    ratios = {
        f"a dictionary / ours, {name}": round(times[reference].median / times[name].median, 1)
        for name, reference in pairs
    }
    return {name: timing.to_json() for name, timing in times.items()}, ratios


def whole(given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, float]]:
    import numpy as np
    import torch

    from tastemaker.feeds import asked_codes, tensors
    from tastemaker.nn.code_writer import CodeWriter, Writing
    from tastemaker.nn.decoding import Limits, Tree, free_search, search
    from tastemaker.types import Codebook, Jagged, Requests

    b, beams = given.requests, given.beams
    book = Codebook(catalogue(given.items), (SIZE,) * (LEVELS + 1))
    torch.manual_seed(0)
    shape = {"n_encoder": 2, "n_decoder": 2, "n_heads": 4, "hidden": 512, "dropout": 0.1}
    writer = CodeWriter(book.sizes, 128, n_signs=1, longest=81, causal=True, **shape).eval()
    histories = Jagged.from_lists(np.random.default_rng(2).integers(0, given.items, (b, 20)), dtype=np.int32)
    requests = Requests.of_items(histories, exclude=histories)
    tree = Tree.of(book.trie)

    def writing() -> Writing:
        batch = tensors(asked_codes(requests, book, 20), "cpu")
        return Writing(writer, writer.read(batch.tokens, batch.offsets, batch.longest))

    with torch.inference_mode():
        times = interleave(
            {
                "whole search, any codes": lambda: free_search(writing(), book.depth, beams),
                "whole search, items alone": lambda: search(writing(), tree, beams, beams),
                "whole search, unseen items alone": lambda: search(
                    writing(), tree, beams, beams, Limits.of(requests, book.trie)
                ),
            },
            given.rounds,
        )
    free = times.pop("whole search, any codes")
    ratios = {f"{name} / any codes": round(one.median / free.median, 2) for name, one in times.items()}
    spent = {
        name: median(one.cpu_seconds) for name, one in {"": free, **times}.items()
    }  # on a busy machine the steadier
    ratios |= {f"{name} / any codes, processor": round(spent[name] / spent[""], 2) for name in times}
    return {name: one.to_json() for name, one in {"whole search, any codes": free, **times}.items()}, ratios


if __name__ == "__main__":
    main()
