"""MiniOneRec: examples teach what follows, rewards what is asked for; answers are those of its log-probabilities."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tastemaker.contracts import Generates, Retrieves, find
from tastemaker.data import split
from tastemaker.data.build import build
from tastemaker.evaluate import evaluate
from tastemaker.feeds import prefixes, tensors, windows
from tastemaker.feeds.code_tasks import CODES, TITLE, Prompts, aligned_tasks
from tastemaker.language.words import title_texts
from tastemaker.nn.decoding import search
from tastemaker.testing import blocks
from tastemaker.train import Bundle, fit
from tastemaker.train.bundle import export_state
from tastemaker.types import (
    Beam,
    Codebook,
    Dataset,
    Greedy,
    ItemFilter,
    Jagged,
    Requests,
    Sample,
    Split,
    make_config,
    request_seeds,
)

SMALL = {**find("minionerec").cls.small, "dim": 32, "lr": 0.01}
N_ITEMS, LENGTH = 96, 8


def chain(n_users: int = 300, seed: int = 0) -> Dataset:
    """After most items comes one and the same item, else any: who writes what comes oftenest is right most often."""
    rng = np.random.default_rng(seed)
    follows = rng.permutation(N_ITEMS)
    items = np.empty((n_users, LENGTH), dtype=np.int64)
    items[:, 0] = rng.integers(0, N_ITEMS, n_users)
    for step in range(1, LENGTH):
        strays = rng.random(n_users) < 0.3
        items[:, step] = np.where(strays, rng.integers(0, N_ITEMS, n_users), follows[items[:, step - 1]])
    events = pl.DataFrame(
        {
            "user": np.repeat(np.arange(n_users), LENGTH),
            "item": items.ravel(),
            "time": np.tile(np.arange(LENGTH), n_users),
        }
    )
    vectors = rng.standard_normal((N_ITEMS, 8)).astype(np.float32)
    table = pl.DataFrame({"item": np.arange(N_ITEMS), "vector": vectors})
    return build("chain", events, pl.DataFrame({"user": np.arange(n_users)}), table, time_unit="step")


PLANTED = {**SMALL, "size": 16, "max_len": 3, "inner": 2, "epochs": 6, "every": 6, "batch_size": 64} | {
    "group": 8, "prompts": 1000, "rl_lr": 0.001, "rl_epochs": 2, "rl_batch_size": 64,
}  # fmt: skip


@cache
def parts() -> Split:
    return split(chain(), "leave-one-out")


@cache
def taught(reward: str, **more: Any) -> Bundle:
    by = {"rewards_by": {"name": "popularity"}} if reward == "collaborative" else {}
    return fit("minionerec", parts(), {**PLANTED, "reward": reward, **by, **more}, seed=1)


def asked_in_training(n: int = 600) -> tuple[Requests, Any]:
    seen = prefixes(parts().train, 3).least(2)
    rows = np.arange(0, len(seen), max(1, len(seen) // n))
    items, offsets = seen.gather(rows)
    last = np.zeros(len(items), dtype=bool)
    last[offsets[1:] - 1] = True
    whole = Jagged(items.astype(np.int32), offsets)
    return Requests.of_items(whole.where(~last)), items[last]


def mean_reward(bundle: Bundle) -> float:
    """How many of the prompts' groups of eight hold the right item."""
    requests, targets = asked_in_training()
    return float((bundle.system.retrieve(requests, 8).items == targets[:, None]).any(axis=1).mean())


def figures(bundle: Bundle) -> dict[str, float]:
    report = evaluate(bundle, parts(), ks=(1, 10), metrics=["recall", "ndcg"])
    return {name: float(report.value(name)) for name in ("recall@1", "recall@10", "ndcg@10")}


def test_examples_teach_more_than_popularity() -> None:
    plain = figures(fit("popularity", parts()))
    assert figures(taught("none"))["ndcg@10"] > 1.3 * plain["ndcg@10"], plain


def test_a_reward_for_the_right_item_brings_more_of_it_and_higher_up() -> None:
    before, after = taught("none"), taught("rule")
    assert mean_reward(after) > mean_reward(before) + 0.02
    one, two = figures(before), figures(after)
    assert two["recall@1"] > 1.5 * one["recall@1"] and two["ndcg@10"] > 1.15 * one["ndcg@10"], (one, two)
    assert two["recall@10"] >= one["recall@10"], (one, two)


def test_a_penalty_for_what_stands_above_it_raises_the_right_item_further() -> None:
    rule, ranking = figures(taught("rule")), figures(taught("ranking"))
    assert ranking["ndcg@10"] > rule["ndcg@10"] and mean_reward(taught("ranking")) > mean_reward(taught("none"))


def test_another_systems_opinion_pulls_towards_what_it_likes() -> None:
    counts = np.bincount(parts().train.interactions()["item"], minlength=N_ITEMS)
    requests, _ = asked_in_training()
    shown = {
        reward: counts[taught(reward).system.retrieve(requests, 8).items].mean() for reward in ("none", "collaborative")
    }
    assert shown["collaborative"] > 1.1 * shown["none"], shown


@cache
def fitted() -> Bundle:
    return fit("minionerec", blocks(), {**SMALL, "epochs": 2, "reward": "semantic"}, seed=1, refit=False)


def asked(n: int = 3, **more: Any) -> Requests:
    histories = blocks().histories().column("item").take(slice(0, n))
    return Requests.of_items(histories, users=np.arange(n), seeds=request_seeds(n, 4), **more)


def ruled() -> Requests:
    allowed = np.random.default_rng(0).random((1, blocks().n_items)) < 0.3
    requests = asked()
    return requests.with_(exclude=requests.items(), filter=ItemFilter(allowed, np.array([0, -1, 0])))


def test_it_generates_and_retrieves() -> None:
    assert isinstance(fitted().system, Generates) and isinstance(fitted().system, Retrieves)


def test_scores_are_log_probabilities_and_a_wide_search_orders_by_them() -> None:
    system, requests = fitted().system, asked()
    scores = system.score(requests)
    total = np.exp(scores.numpy().astype(np.float64)).sum(axis=1)
    assert (total > 0.1).all() and (total <= 1 + 1e-5).all()
    slates = system.retrieve(requests, blocks().n_items)
    for row in range(3):
        np.testing.assert_allclose(slates.scores[row], scores[row][slates.items[row]], rtol=1e-4, atol=1e-4)


def test_what_is_learnt_is_what_is_asked() -> None:
    """The losses of a history's codes are what is told of its items by the same history's prefixes."""
    system, data = fitted().system, blocks()
    phrases = system.phrases([""] * data.n_items)
    seen = windows(data, system.config.max_len + 1)
    batch = aligned_tasks(seen, phrases, 4, aligned=0.0).batch(0, 0)
    with torch.no_grad():
        losses = system.objective(system.gather(tensors(batch, "cpu")), tensors(batch, "cpu"))
    depth = system.coded.book.depth
    rows = np.split(
        batch.targets.reshape(-1, depth), np.cumsum(np.diff(np.searchsorted(batch.places, batch.offsets)))[:-1] // depth
    )
    expected = 0.0
    for codes in rows:
        items = system.coded.book.trie.items_of(codes)
        histories = [items[:n] for n in range(len(items))]
        told = system.score(Requests.of_items(histories), items[:, None])
        expected -= float(told.sum())
    assert float(losses.sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("decoding", [Beam(), Sample(), Sample(0.7)])
def test_generated_items_are_allowed_and_their_codes_are_theirs(decoding: Any) -> None:
    system, requests, n = fitted().system, ruled(), 6
    samples = system.generate(requests, n, decoding)
    assert requests.exclude is not None and requests.filter is not None
    items = samples.slates.items.reshape(3, n)
    for row in range(3):
        shown = items[row][items[row] >= 0]
        assert len(shown) == n and not np.isin(shown, requests.exclude[row]).any()
        rule = requests.filter.which[row]
        assert rule < 0 or requests.filter.allowed[rule, shown].all()
    tokens = samples.tokens.values.reshape(3 * n, -1) - system.coded.book.shifts
    assert np.array_equal(tokens, system.coded.book.codes[items.ravel()])
    if decoding != Sample(0.7):
        told = system.logp(requests, samples)
        np.testing.assert_allclose(told.detach(), samples.logp.values, rtol=1e-3, atol=1e-4)
    assert len(system.generate(requests, 1, Greedy()).slates) == 3


def test_samples_are_as_frequent_as_told() -> None:
    system, n = fitted().system, 3000
    samples = system.generate(ruled().take(slice(0, 1)), n, Sample())
    chance = {
        int(i): float(np.exp(p)) for i, p in zip(samples.slates.items[:, 0], samples.slates.logp[:, 0], strict=True)
    }
    counts = Counter(samples.slates.items[:, 0].tolist())
    assert sum(chance.values()) == pytest.approx(1, abs=0.02)
    for item, p in chance.items():
        assert counts[item] / n == pytest.approx(p, abs=4.5 * np.sqrt(p / n))


def test_groups_are_items_of_the_catalogue_each_once_and_their_gains_cancel() -> None:
    system, data = fitted().system, blocks()
    prompts = Prompts(prefixes(data, 5).least(2), system.phrases(title_texts(data.items)), 40, 0.5)
    with torch.no_grad():
        groups = system.play(prompts, lambda asked, items, right: right + 0.1 * (items % 3), np.arange(80), None)
    assert groups.codes.shape == (80, 4, system.coded.book.depth) and groups.there.all()
    assert (system.coded.book.trie.items_of(groups.codes) >= 0).all()
    assert all(len({tuple(codes) for codes in group}) == 4 for group in groups.codes.tolist())
    np.testing.assert_allclose(groups.advantages.sum(axis=1), 0, atol=1e-4)
    told = system.answered(tensors(groups, "cpu")).sum(dim=-1)
    asked = prompts.take(np.arange(80))
    items = system.coded.book.trie.items_of(groups.codes)
    scores = system.score(Requests.of_items(asked.histories), items)
    of_codes = np.arange(80) < len(prompts.picked)  # those that ask by codes come first
    np.testing.assert_allclose(told.detach()[of_codes], scores[of_codes], rtol=1e-3, atol=1e-3)


def test_items_of_one_tuple_are_one_answer() -> None:
    system, data = fitted().system, blocks()
    twins = system.coded.book.codes.copy()
    twins[1::2] = twins[::2][: len(twins[1::2])]
    whole, system.coded.book = system.coded.book, Codebook(twins, system.coded.book.sizes)
    try:
        prompts = Prompts(prefixes(data, 5).least(2), system.phrases([""] * data.n_items), 20, 0.0)
        with torch.no_grad():
            groups = system.play(prompts, lambda asked, items, right: right, np.arange(20), None)
    finally:
        system.coded.book = whole
    for codes, there in zip(groups.codes.tolist(), groups.there, strict=True):
        kept = [tuple(one) for one, is_there in zip(codes, there, strict=True) if is_there]
        assert len(kept) == len(set(kept)) < 4
    assert (groups.advantages[~groups.there] == 0).all()


class Stopped(Exception):
    pass


def test_a_run_that_is_stopped_among_rewards_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policies that it is kept near, and that play, come back as they were."""
    more = {
        "epochs": 1,
        "every": 1,
        "batch_size": 256,
        "prompts": 96,
        "rl_batch_size": 16,
        "rl_epochs": 2,
        "sync": 4,
        "updates": 3,
    }
    config = {**SMALL, **more, "beta": 0.1, "rl_lr": 0.01, "reward": "rule"}
    whole = export_state(fit("minionerec", parts(), config, seed=3).system)
    cls = find("minionerec").cls
    done = cls._step_done
    for at in (3, 5):  # within an epoch, and at its end

        def failing(self: Any, step: int, last: int = at) -> None:
            if step > last:
                raise Stopped
            done(self, step)

        run = tmp_path / str(at)
        monkeypatch.setattr(cls, "_step_done", failing)
        with pytest.raises(Stopped):
            fit("minionerec", parts(), config, seed=3, run=run, checkpoint_seconds=0)
        monkeypatch.setattr(cls, "_step_done", done)
        resumed = export_state(fit("minionerec", parts(), config, seed=3, run=run).system)
        assert set(whole) == set(resumed) and all(np.array_equal(whole[name], resumed[name]) for name in whole)
    other = export_state(fit("minionerec", parts(), {**config, "sync": 0, "updates": 1}, seed=3).system)
    assert any(not np.array_equal(whole[name], other[name]) for name in whole), "copies matter"


def test_words_and_codes_teach_each_other_and_prompts_of_titles_are_answered() -> None:
    data = blocks()
    config = {**SMALL, "epochs": 2, "aligned": 1.0, "reward": "rule", "asked_titles": 0.5}
    bundle = fit("minionerec", data, config, seed=1, refit=False)
    system = bundle.system
    phrases = system.phrases(title_texts(data.items))
    items = Jagged(np.arange(data.n_items), np.arange(data.n_items + 1))
    with torch.no_grad():
        reading = system._reading(system.writer, phrases.asked(CODES, items))
        found = search(reading.steps(), system._answers().tree, 5, 20).items.numpy()
        prompts = phrases.asked(TITLE, items)
        states = system._reading(system.writer, prompts).last
        first = system.writer.logits(states, system.coded.book.depth).argmax(dim=-1).numpy()
    block = np.array([int(item) % 4 for item in data.items["item"]])
    assert (block[found] == block[:, None]).mean() > 0.7, "a title finds items of its own block"
    spoken: dict[int, set[int]] = {b: set() for b in range(4)}
    for row, of in zip(phrases.titles.to_lists(), block.tolist(), strict=True):
        spoken[of].update(row)
    assert np.mean([word in spoken[of] for word, of in zip(first, block.tolist(), strict=True)]) > 0.7


def test_a_new_item_gets_the_codes_of_its_like_and_is_found() -> None:
    bundle = fitted()
    system, old = bundle.system, blocks().n_items
    like = bundle.catalogue.row(7, named=True)
    fresh = pl.DataFrame([{**like, "item": 10_000}], schema=bundle.catalogue.schema)
    larger = system.extend(items=fresh)
    ours, theirs = larger.coded.book, system.coded.book
    assert ours.n_items == old + 1 and np.array_equal(ours.codes[:old], theirs.codes)
    assert np.array_equal(ours.codes[old, :-1], theirs.codes[7, :-1])
    only = asked(candidates=Jagged.from_lists([[old], [old, 3], []], dtype=np.int32))
    assert larger.retrieve(only, 3).lengths.tolist() == [1, 2, 0]


def test_an_open_weight_model_writes_in_its_own_words(tmp_path: Path) -> None:
    """A Qwen of one layer, made on the spot, with a tokenizer that cuts titles into words."""
    library, cutters = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    pytest.importorskip("peft")
    words = ["[UNK]", *sorted({word for title in blocks().items["title"] for word in title.split()})]
    cutter = cutters.Tokenizer(cutters.models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    cutter.pre_tokenizer = cutters.pre_tokenizers.Whitespace()
    library.PreTrainedTokenizerFast(tokenizer_object=cutter, unk_token="[UNK]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": len(words)}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    library.Qwen3Model(library.Qwen3Config(**sizes, **heads)).save_pretrained(tmp_path)
    config = {**SMALL, "language": str(tmp_path), "rank": 2, "epochs": 2, "reward": "rule"}
    bundle = fit("minionerec", blocks(), config, seed=1, refit=False)
    system, requests = bundle.system, ruled()
    first = blocks().items["title"][0]
    assert system.phrases([first]).titles.to_lists() == [[words.index(word) for word in first.split()]]
    items = system.retrieve(requests, 6).items
    assert requests.exclude is not None and not any(
        np.isin(row, seen).any() for row, seen in zip(items, requests.exclude, strict=True)
    )
    bundle.save(tmp_path / "bundle")
    assert np.array_equal(Bundle.load(tmp_path / "bundle").system.retrieve(requests, 6).items, items)


def test_settings_that_do_not_fit_are_refused() -> None:
    config = find("minionerec").config
    for wrong in ({"dim": 30, "n_heads": 4}, {"reward": "collaborative"}, {"rewards_by": "popularity"}):
        with pytest.raises(Exception, match="do not fit together"):
            make_config(config, wrong)
    assert find("minionerec").config().coding.sizes == (256, 256, 256)
