"""What a ranker reads and predicts: its tasks, its fields, and the frozen code that it learnt of them, in one piece.

self.reader = Reader(schema, config.columns, config.tasks)              # in the constructor
self.reader.take((yield Fit(self.reader.learn, data)))                  # in the program
yield Train(self.reader.feed(data, batch_size), ...)
self.reader.ask(self, requests, items)                                  # outputs [B, C, T] when asked
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, tensors
from tastemaker.feeds.fields import Encoder, Fields, learn
from tastemaker.feeds.labels import Labelled, tasks_of
from tastemaker.feeds.rows import Rows, pairs, rows
from tastemaker.types import Dataset, Requests, Schema, State, UsageError

PREFIX = "reader."


class Network(Protocol):
    """Reads rows, and says something of each: outputs [rows, T] of what `gather` read of a batch."""

    def gather(self, batch: Any) -> Any: ...

    def __call__(self, read: Any, batch: Any) -> Any: ...

    def parameters(self) -> Iterator[Any]: ...


class Reader:
    """See the module.

    Args:
        columns: columns that are read, as "items.genre" or "events.weekday"; None: all that can be.
        tasks: see `tastemaker.feeds.labels`.
        max_len: latest choices of a history that are read; 0: none are.
    """

    def __init__(
        self, schema: Schema, columns: Sequence[str] | None, tasks: Sequence[str], *, max_len: int = 0
    ) -> None:
        self.tasks = tasks_of(tasks, schema)
        self.fields = Fields.of(schema, columns, self.tasks)
        self.max_len = max_len
        self.encoder: Encoder | None = None
        self.known: list[list[Any]] = []  # the vocabulary of an older fit, which keeps its rows

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    @property
    def binary(self) -> list[bool]:
        return [task.binary for task in self.tasks]

    # -- learning

    def learn(self, data: Dataset) -> dict[str, NDArray[Any]]:
        """What is to be known of the training part: the encoder's arrays, and moments [2, T] of the labels."""
        labels = Labelled.of(data, self.tasks).labels
        return {**learn(data, self.fields, self.known), "moments": label_moments(labels, self.binary)}

    def take(self, found: State) -> NDArray[np.float32]:
        """Read from now on by what `learn` gave; returns the moments of the labels."""
        self.encoder = Encoder(self.fields, found)
        return np.asarray(found["moments"])

    def feed(self, data: Dataset, batch_size: int, *, negatives: int) -> RowFeed[Rows]:
        """Every labelled row once an epoch; see `tastemaker.feeds.rows.rows`."""
        return rows(data, self._ready, self.tasks, batch_size, negatives=negatives, max_len=self.max_len)

    def adopt(self, old: Reader) -> None:
        """Number categories as an older fit does; values that it did not know come after."""
        if old.fields.categories != self.fields.categories or old.fields.bags != self.fields.bags:
            raise UsageError(
                f"the older fit reads the columns {old.fields.categories + old.fields.bags}, this one "
                f"{self.fields.categories + self.fields.bags}",
                hint="name the columns in the settings",
            )
        self.known = old.words()

    # -- answering

    def ask(self, network: Network, requests: Requests, items: Any) -> Any:
        """What a network of rows says of each request and item: a tensor [B, C, T], or [B, I, T]."""
        import torch

        width = self.fields.n_items if items is None else items.shape[1]
        device = next(network.parameters()).device
        asked = (tensors(part, device) for part in pairs(self._ready, requests, items, max_len=self.max_len))
        parts = [network(network.gather(batch), batch) for batch in asked]
        if not parts:
            return torch.zeros(requests.n, width, len(self.tasks), device=device)
        return torch.cat(parts).view(requests.n, width, len(self.tasks))

    # -- keeping

    def words(self) -> list[list[Any]]:
        """The vocabulary, as `learn` takes it."""
        found: list[list[Any]] = json.loads(self._ready.arrays["vocabulary"].tobytes())
        return found

    def export(self) -> dict[str, NDArray[Any]]:
        """The encoder's arrays, for a bundle."""
        return {PREFIX + name: array for name, array in self._ready.arrays.items()}

    def restore(self, state: State) -> dict[str, NDArray[Any]]:
        """Take the encoder's arrays out of a bundle's state; returns the rest.

        Raises:
            BundleError: they do not fit the schema.
        """
        own = {name.removeprefix(PREFIX): array for name, array in state.items() if name.startswith(PREFIX)}
        self.encoder = Encoder.check(self.fields, own)
        return {name: array for name, array in state.items() if not name.startswith(PREFIX)}

    @property
    def _ready(self) -> Encoder:
        if self.encoder is None:
            raise UsageError("nothing has been learnt of the columns yet", hint="fit the system, or open a bundle")
        return self.encoder


def label_moments(labels: NDArray[np.float32], binary: Sequence[bool]) -> NDArray[np.float32]:
    """Mean and deviation [2, T] of the labels of numbers; 0 and 1 for binary tasks."""
    found = np.zeros((2, len(binary)), np.float32)
    found[1] = 1.0
    for task, is_binary in enumerate(binary):
        values = labels[:, task][~np.isnan(labels[:, task])].astype(np.float64)
        if not is_binary and len(values):
            deviation = float(values.std())
            found[:, task] = values.mean(), deviation if deviation > 0 else 1.0
    return found
