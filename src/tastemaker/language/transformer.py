"""Vectors of texts by an open-weight model: its last hidden states, averaged over the words (extra "language").

    TransformerText("sentence-transformers/all-MiniLM-L6-v2").encode(["a new text"])        # by name, or by folder

Weights are read from safetensors files alone, and no code that comes with a model is run.

Ref: Reimers, Gurevych, "Sentence-BERT", EMNLP 2019, arXiv:1908.10084 (mean pooling).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types import Jagged, UsageError, optional
from tastemaker.types.progress import progress

LONGEST, BATCH = 256, 64  # tokens of a text, texts at once


class TransformerText:
    """Texts to vectors of unit length; an empty text is 0.

    Args:
        name: of a model, or the folder it lies in.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        library = optional("transformers", extra="language", why=f"the text encoder {self.name!r}")
        try:
            cutter = library.AutoTokenizer.from_pretrained(self.name)
            model = library.AutoModel.from_pretrained(self.name, use_safetensors=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the text encoder {self.name!r} cannot be opened: {str(error).splitlines()[0]}",
                hint="the name of a model with safetensors weights, or its folder; 'tfidf' needs none",
            ) from error
        return cutter, model.eval()

    @property
    def dim(self) -> int:
        return int(self._loaded[1].config.hidden_size)

    @cached_property
    def identity(self) -> str:
        """The name, and for a folder a hash of its settings and of how large its weights are."""
        folder = Path(self.name)
        if not folder.is_dir():
            return f"transformer-1-{self.name}"
        total = hashlib.blake2b(digest_size=8)
        for file in sorted(folder.glob("*.json")):
            total.update(file.read_bytes())
        for file in sorted(folder.glob("*.safetensors")):
            total.update(f"{file.name}:{file.stat().st_size}".encode())
            with file.open("rb") as stored:
                total.update(stored.read(1 << 20))
        return f"transformer-1-{folder.name}-{total.hexdigest()}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, D]; those of about one length are read together."""
        import torch

        cutter, model = self._loaded
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        order = [n for n in np.argsort([len(text) for text in texts], kind="stable").tolist() if texts[n].strip()]
        with progress(f"reading texts by {Path(self.name).name}", len(order)) as advance, torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                cut = cutter(
                    [texts[n] for n in rows], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
                )
                words = cut["attention_mask"].unsqueeze(-1).float()
                states = model(**cut).last_hidden_state
                means = (states * words).sum(dim=1) / words.sum(dim=1).clamp(min=1)
                vectors[rows] = torch.nn.functional.normalize(means, dim=1).numpy()
                advance(len(rows))
        return vectors


def word_pieces(texts: Sequence[str], name: str, most: int) -> Jagged[NDArray[np.int64]]:
    """The numbers of the first `most` pieces that a model's own tokenizer cuts each text into, without its signs."""
    library = optional("transformers", extra="language", why=f"the language model {name!r}")
    try:
        cutter = library.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name!r} has no tokenizer: {str(error).splitlines()[0]}") from error
    cut = cutter(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    return Jagged.from_lists([pieces[:most] for pieces in cut], dtype=np.int64)
