"""MiniOneRec: a language model of items' codes and the words of titles, taught by examples, then by rewards.

Items are tuples of codes made of what is said about them, as in TIGER. A decoder alone learns to write the codes of
the next item after the codes of a history, and beside that what the codes mean: codes of a title, the title of codes,
the next title after codes, the next codes after titles. Then it plays: for each prompt one search on the tree of codes
finds a group of items, all of them in the catalogue and no two alike; each is rewarded, and is made likelier by how
much it is better than its group (GRPO).

Kept from the paper: three levels of codes, and other last codes for items of one tuple as far as there are any; the
mix of tasks, cross-entropy of answers alone; groups from one constrained beam search; the rewards: 1 for the item that
was chosen ("rule"); with a penalty for wrong items that stand high in a group which has the right one ("ranking");
likeness of texts ("semantic"); what another system makes of the items ("collaborative"); one update a group, kept near
a policy that is renewed now and then. Changed:
- The decoder is small and begins from nothing, its words being the commonest ones of the titles; `language` takes the
  blocks and words of an open-weight model, with `rank` by LoRA. (The paper found that clearly better: table 3.)
- A code is chosen among those of its level, a word among words, not among all tokens, and there is no template around
  a prompt: a sign names the task.
- After the codes of a history all of its items are told at once, since each depends on those before it alone. The
  tasks with titles draw their histories: `aligned` rows of each task for a row of codes.
- With `updates` above 1 a frozen copy plays that many steps, and the ratio to it is clipped, as the paper has it; its
  code makes one update, where nothing is clipped and ratios of tokens and of sequences have one gradient.
- All answers have as many tokens, so it makes no difference whether the loss is a mean over answers or over tokens.
- Prompts are numbered by the choices that answer them: like histories keep answers of their own.

Ref: Kong et al., "MiniOneRec: an open-source framework for scaling generative recommendation", arXiv:2510.24431;
Shao et al., "DeepSeekMath", arXiv:2402.03300, for GRPO.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.contracts import Epochs, Fit, Optimiser, Plateau, Precompute, Program, Train, system
from tastemaker.feeds import RowFeed, prefixes, rollout, windows
from tastemaker.feeds.code_tasks import N_TASKS, NEXT, Asked, Groups, Phrases, Prompts, Told, aligned_tasks
from tastemaker.language.features import CONTENT, ItemVectors
from tastemaker.language.transformer import word_pieces
from tastemaker.language.words import Words, checked_words, common_words, title_texts, word_numbers
from tastemaker.nn.causal_model import CausalModel
from tastemaker.nn.code_answers import CodeAnswers, picked_logp
from tastemaker.nn.coded_items import CodedItems
from tastemaker.nn.content import restore_layers
from tastemaker.nn.decoding import search
from tastemaker.nn.dropout import nothing_dropped
from tastemaker.nn.group_rewards import likeness, opinion, rank_penalty
from tastemaker.nn.item_codes import CodeConfig, Codes, Collisions
from tastemaker.nn.policy_gradient import Ratio, group_advantages, grpo
from tastemaker.nn.token_writer import Reading, TokenWriter
from tastemaker.nn.transformer import Transformer
from tastemaker.types import (
    Array,
    Dataset,
    Decoding,
    Jagged,
    Requests,
    Samples,
    Schema,
    Slates,
    State,
    SystemRef,
    setting,
    to_numpy,
)

Rewards = Literal["none", "rule", "ranking", "semantic", "collaborative"]
Reward = Callable[[Asked, NDArray[Any], NDArray[np.bool_]], NDArray[Any]]
"""What each of the items [B, G] that were found for prompts is worth, from whether it is right [B, G]."""
COPIES = ("reference", "player")


@system(
    "minionerec",
    family="generative",
    title="MiniOneRec: codes and words, by examples and by rewards",
    paper="arXiv:2510.24431",
    learns_from={"events", "events.time", CONTENT},
    needs={"history"},
)
class MiniOneRec(nn.Module):
    """Writes the codes of the next item after a history, having been rewarded for the right ones."""

    rows: ClassVar[Mapping[str, Any]] = {}  # nothing has a row for each user or item
    small: ClassVar = {"epochs": 3, "every": 3, "batch_size": 32, "max_len": 10, "beams": 20, "levels": 2} | {
        "digits": 32, "n_layers": 1, "n_heads": 2, "inner": 1, "words": 100, "aligned": 0.1, "collisions": "digit",
        "group": 4, "prompts": 64, "rl_epochs": 1,
    }  # fmt: skip

    @dataclass(frozen=True)
    class Config:
        columns: str = setting("", "Item columns that codes are made of, separated by commas; none named: all texts.")
        text_dim: int = setting(128, "Width of the text vectors.", low=1, log=True, search=(64, 256))
        codes: Codes = setting(
            "kmeans",
            "What makes codes: residual k-means, plain or with clusters of one size; an RQ-VAE; planes; chance.",
            choices=("kmeans", "balanced", "rqvae", "lsh", "random"),
        )
        levels: int = setting(3, "Levels of codes.", low=1, high=8, search=(2, 4))
        size: int = setting(
            256, "Codes a level, or one for 8 items, where that is fewer.", low=2, high=65_536, log=True
        )
        collisions: Collisions = setting(
            "sinkhorn",
            "Items of one tuple: other last codes as far as there are any, or a further digit.",
            choices=("sinkhorn", "digit"),
        )
        digits: int = setting(256, "How many items of one tuple the further digit tells apart.", low=1, high=65_536)
        latent: int = setting(32, "rqvae only: width of its codes' vectors.", low=1)
        code_epochs: int = setting(500, "rqvae only: epochs of its training.", low=1)
        code_lr: float = setting(1e-3, "rqvae only: learning rate.", low=1e-6, high=1.0, log=True)
        titles: str = setting(
            "", "Columns with words that stand for an item, separated by commas; none named: the title, or all texts."
        )
        words: int = setting(4000, "Words that are known, the commonest.", low=1, high=1_000_000, log=True)
        title_len: int = setting(8, "Known words of a title that are read and written, the first.", low=1, high=64)
        max_titles: int = setting(5, "Titles of a history that are read, the latest.", low=1)
        aligned: float = setting(
            0.25, "Rows of each task with titles for a row of codes; 0: codes alone.", low=0.0, search=(0.0, 1.0)
        )
        language: str = setting(
            "", "A language model that goes on from left to right, by name or folder; none: a small one from nothing."
        )
        rank: int = setting(0, "Width of the thin matrices that learn beside its weights; 0: these learn.", low=0)
        dim: int = setting(128, "Width of the network.", low=1, log=True, search=(64, 256))
        n_layers: int = setting(4, "Blocks.", low=1, search=(2, 6))
        n_heads: int = setting(4, "Heads of attention; `dim` is a multiple of it.", low=1)
        inner: int = setting(4, "Inner layers are so many times as wide as the network.", low=1)
        dropout: float = setting(0.1, "Share of values that examples leave out.", low=0.0, high=0.9, search=(0.0, 0.4))
        max_len: int = setting(10, "Events of a history that are looked at, the latest.", low=1, log=True)
        beams: int = setting(50, "Beginnings that a search keeps; lists of more keep as many.", low=1, log=True)
        lr: float = setting(1e-3, "Learning rate by examples.", low=1e-6, high=1.0, log=True, search=(3e-4, 3e-3))
        weight_decay: float = setting(0.01, "Decay of weights.", low=0.0, search=(0.0, 0.1))
        batch_size: int = setting(128, "Rows a step.", low=1)
        epochs: int = setting(100, "Most epochs.", low=1)
        patience: int = setting(3, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(4, "Epochs between evaluations.", low=1)
        reward: Rewards = setting(
            "ranking",
            "What answers are worth: see the module; none: they are taught by examples alone.",
            choices=("none", "rule", "ranking", "semantic", "collaborative"),
        )
        rewards_by: SystemRef | None = setting(
            None, "collaborative only: the system that says what items are worth, fitted first on the same data."
        )
        group: int = setting(16, "Answers to a prompt.", low=2)
        prompts: int = setting(10_000, "Histories that are asked about, at most.", low=1, log=True)
        asked_titles: float = setting(
            0.0, "As many more prompts, for each of these, of titles of a history, and of one title.", low=0.0
        )
        rl_epochs: int = setting(2, "How often each prompt is asked.", low=1)
        rl_batch_size: int = setting(64, "Prompts a step.", low=1)
        rl_lr: float = setting(1e-4, "Learning rate by rewards.", low=1e-7, high=1.0, log=True, search=(1e-5, 1e-3))
        beta: float = setting(1e-3, "How much the divergence from the reference counts; 0: not at all.", low=0.0)
        sync: int = setting(0, "Steps between renewals of the reference; 0: it stays what examples taught.", low=0)
        updates: int = setting(1, "Steps that one policy plays; above 1 the ratio to it is clipped.", low=1)
        clip: float = setting(0.2, "How far the ratio may go from 1.", low=0.0)
        ratio: Ratio = setting(
            "token", "The ratio: of each token, or of a whole answer.", choices=("token", "sequence")
        )

        def __post_init__(self) -> None:
            if self.dim % self.n_heads:
                raise ValueError(f"{self.n_heads} heads do not share a width of {self.dim} evenly")
            if (self.reward == "collaborative") != (self.rewards_by is not None):
                raise ValueError("a collaborative reward names in rewards_by the system that gives it, no other does")
            assert self.coding

        @property
        def coding(self) -> CodeConfig:
            """What makes codes; checked when it is built."""
            policy = self.collisions, self.digits
            return CodeConfig(self.codes, self.levels, self.size, *policy, self.latent, self.code_epochs, self.code_lr)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        c, coding = config, config.coding
        self.coded = CodedItems(ItemVectors(schema.items, c.columns, text_dim=c.text_dim), coding)
        depth, title = len(coding.sizes), c.title_len + 1
        body: CausalModel | Transformer
        if c.language:
            body = CausalModel(c.language, c.rank)
            dim, n_words, longest = body.dim, body.n_words, None
        else:
            body = Transformer(c.dim, c.n_layers, c.n_heads, hidden=c.inner * c.dim, dropout=c.dropout)
            longest = 1 + max(c.max_len * depth, c.max_titles * title) + max(depth, title)
            dim, n_words = c.dim, c.words
        self.writer = TokenWriter(
            coding.sizes, dim, body, n_words=n_words + 1, n_signs=N_TASKS, longest=longest, dropout=c.dropout
        )
        learns = c.reward != "none"
        self.reference = copy.deepcopy(self.writer).requires_grad_(False) if learns and c.beta else None
        self.player = copy.deepcopy(self.writer).requires_grad_(False) if learns and c.updates > 1 else None
        self.words: Words = np.empty(0, dtype=np.uint64)

    # -- learning

    def program(self, data: Dataset) -> Program:
        c = self.config
        judge = (yield Fit(c.rewards_by, data)) if c.rewards_by is not None else None
        texts = title_texts(data.items, c.titles)
        yield from self.coded.learn(data.items, RowFeed)
        if not self.coded.adopted:
            if isinstance(self.writer.body, CausalModel):
                self.writer.take_words(self.writer.body.load())
            else:
                self.words = yield Precompute(common_words, texts, c.words)
        phrases = self.phrases(texts)
        yield Train(
            aligned_tasks(windows(data, c.max_len + 1, which="all"), phrases, c.batch_size, aligned=c.aligned),
            self.gather,
            self.objective,
            until=Plateau("ndcg@10", c.patience, c.every, c.epochs),
            optimiser=Optimiser("adamw", lr=c.lr, weight_decay=c.weight_decay, warmup=20),
            parameters=list(self.writer.parameters()),
        )
        if c.reward == "none":
            return
        prompts = Prompts(prefixes(data, c.max_len).least(2), phrases, c.prompts, c.asked_titles)
        reward = self._reward(data.items, judge)
        yield Train(
            rollout(self, partial(self.play, prompts, reward), episodes=len(prompts), batch_size=c.rl_batch_size),
            self.answered,
            self.rewarded,
            until=Epochs(c.rl_epochs),
            optimiser=Optimiser("adamw", lr=c.rl_lr, clip=0.3, schedule="cosine"),
            every_epoch=lambda epoch: None if epoch else self._renew(*COPIES),
            after_step=self._step_done,
            parameters=list(self.writer.parameters()),
        )

    def phrases(self, texts: Sequence[str]) -> Phrases:
        """Items in tokens, these texts being their titles."""
        c = self.config
        cut = (
            word_pieces(texts, c.language, c.title_len) if c.language else word_numbers(texts, self.words, c.title_len)
        )
        return Phrases(self.coded.book, cut, self.writer.n_words - 1, c.max_titles)

    def gather(self, batch: Told) -> Tensor:
        states: Tensor = self.writer(batch.tokens, batch.offsets, batch.longest)[batch.places]
        return states

    def objective(self, states: Tensor, batch: Told) -> Tensor:
        """-log of the probability of each token of the answers [M], those of a level side by side."""
        told = []
        for head in range(self.writer.depth + 1):
            mine = (batch.heads == head).nonzero().squeeze(1)
            logits = self.writer.logits(states[mine], head)
            told.append(F.cross_entropy(logits, batch.targets[mine], reduction="none"))
        return torch.cat(told)

    def play(self, prompts: Prompts, reward: Reward, rows: NDArray[np.int64], seeds: NDArray[np.uint64]) -> Groups:
        """Groups of answers by one search a prompt, and how much better each is than its group. Nothing is drawn."""
        asked = prompts.take(rows)
        reading = self._reading(self.player or self.writer, asked)
        found = search(reading.steps(), self._answers().tree, self.config.group, self.config.group)
        codes = found.codes
        there = found.items >= 0
        there[:, 1:] &= (codes[:, 1:] != codes[:, :-1]).any(dim=-1)  # items of one tuple are one answer
        right = to_numpy((codes == self._tensor(self.coded.book.codes[asked.targets]).unsqueeze(1)).all(dim=-1))
        worth = self._tensor(reward(asked, to_numpy(found.items), right).astype(np.float32))
        told = {}
        for name, policy in (("old", self.player), ("reference", self.reference)):
            if policy is not None:
                again = reading if policy is self.player else self._reading(policy, asked)
                told[name] = to_numpy(picked_logp(again.logp(codes), codes))
        parts = map(to_numpy, (codes, there, group_advantages(worth, there)))
        return Groups(asked.tokens, asked.offsets, asked.longest, *parts, **told)

    def answered(self, batch: Groups) -> Tensor:
        """Log-probability of each code of the answers [B, G, Q], nothing dropped out, as when they were found."""
        with nothing_dropped(self.writer):
            reading = self.writer.read(batch.tokens, batch.offsets, batch.longest)
            return picked_logp(reading.logp(batch.codes), batch.codes)

    def rewarded(self, logp: Tensor, batch: Groups) -> Tensor:
        """The loss of each group [B]."""
        c, there = self.config, batch.there.unsqueeze(-1).expand_as(logp)
        clip = None if batch.old is None else c.clip
        kept = {"reference": batch.reference, "beta": c.beta, "old": batch.old, "clip": clip, "there": there}
        return grpo(logp, batch.advantages, ratio=c.ratio, **kept)

    def _reward(self, items: pl.DataFrame, judge: Any) -> Reward:
        """What answers are worth, as the settings say."""
        how = self.config.reward
        if how == "semantic":
            vectors = self.coded.said.encode(items)
            return lambda asked, found, right: likeness(vectors, found, asked.targets)
        if how == "collaborative":
            return lambda asked, found, right: opinion(
                judge, Requests.of_items(asked.histories, users=asked.users), found
            )
        if how == "rule":
            return lambda asked, found, right: right
        return lambda asked, found, right: right + rank_penalty(right)

    def _step_done(self, step: int) -> None:
        c = self.config
        due = c.sync and (step + 1) % c.sync == 0, (step + 1) % c.updates == 0
        self._renew(*(name for name, now in zip(COPIES, due, strict=True) if now))

    def _renew(self, *copies: str) -> None:
        """Copies of the policy become what it is now; checkpoints find them among the weights."""
        for name in copies:
            if (frozen := getattr(self, name)) is not None:
                frozen.load_state_dict(self.writer.state_dict())

    def facts(self) -> Mapping[str, float]:
        """How the codes are used, before items of one tuple were told apart; and how many words are known."""
        return {**self.coded.coder.figures, "words": float(len(self.words))}

    # -- codes of items that come later

    def adopt(self, old: MiniOneRec, users: NDArray[np.integer[Any]], items: NDArray[np.integer[Any]]) -> None:
        """Take an older fit's codes and words, and what made them: its network means nothing without them."""
        self.coded.adopt(old.coded, items)
        self.words = old.words

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> MiniOneRec:
        """With further items, written by codes made of their texts; users need no rows."""
        n_users, n_items = (0 if table is None else len(table) for table in (users, items))
        schema = replace(self.schema, n_users=self.schema.n_users + n_users, n_items=self.schema.n_items + n_items)
        larger = type(self)(self.config, schema)
        larger.restore({**self.export(), **self.coded.with_items(items)})
        return larger

    # -- answering

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The k likeliest items that a beam search finds."""
        return self._answers().retrieve(requests, k)

    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        """n items a request as their codes, each a list of one item."""
        return self._answers().generate(requests, n, decoding)

    def logp(self, requests: Requests, samples: Samples) -> Tensor:
        """Log-probability of each code of samples among those that lead to an allowed item [N], differentiable."""
        return self._answers().logp(requests, samples)

    def score(self, requests: Requests, items: Array | None = None) -> Tensor:
        """Log-probabilities of items [B, C], exact; of all of them that takes far longer than a search for the best."""
        return self._answers().score(requests, items)

    def _answers(self) -> CodeAnswers:
        return self.coded.answers(self._read, self.config.beams, self.writer.tokens.weight.device)

    def _read(self, requests: Requests) -> Reading:
        items = requests.items()
        known = items.where(items.values < self.coded.book.n_items).last(self.config.max_len)
        untitled = Phrases(self.coded.book, Jagged.empty(0, np.int64), self.writer.n_words - 1, self.config.max_titles)
        return self._reading(self.writer, untitled.asked(NEXT, known))

    def _reading(self, writer: TokenWriter, prompts: Asked | Jagged[NDArray[Any]]) -> Reading:
        if isinstance(prompts, Asked):
            tokens, offsets, longest = prompts.tokens, prompts.offsets, prompts.longest
        else:
            tokens, offsets, longest = prompts.values, prompts.offsets, int(prompts.lengths.max(initial=1))
        return writer.read(self._tensor(tokens), self._tensor(offsets), longest)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.writer.tokens.weight.device)

    # -- bundles

    def export(self) -> dict[str, Any]:
        told = {f"writer.{name}": to_numpy(array) for name, array in self.writer.state_dict().items()}
        return {**told, **self.coded.export(), "words": self.words}

    def restore(self, state: State) -> None:
        self.coded.restore(state, self.schema.n_items)
        self.words = checked_words(state.get("words"), self.config.words)
        restore_layers(self.writer, state, "writer.")
        self.eval()
