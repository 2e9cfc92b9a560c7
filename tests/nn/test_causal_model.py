"""A language model made on the spot as the body of a writer: read, continued, and with thin matrices beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tastemaker.nn.causal_model import CausalModel
from tastemaker.nn.ragged import Layout
from tastemaker.nn.token_writer import TokenWriter
from tastemaker.types import UsageError

SIZES, LENGTHS, WIDTH, WORDS = (5, 4, 3), [4, 1, 7], 16, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen of two layers, its weights drawn at random."""
    library = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "intermediate_size": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = library.Qwen2Config(vocab_size=WORDS, tie_word_embeddings=True, initializer_range=0.3, **sizes, **heads)
    library.AutoModelForCausalLM.from_config(config).save_pretrained(place)
    return place


def rows() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(0, 30, (length,)) for length in LENGTHS]


def flat(parts: list[Tensor]) -> tuple[Tensor, Tensor, int]:
    lengths = [len(part) for part in parts]
    return torch.cat(parts), torch.tensor([0, *lengths]).cumsum(0), max(lengths)


def tuples(*shape: int) -> Tensor:
    torch.manual_seed(2)
    return torch.stack([torch.randint(0, size, shape) for size in SIZES], dim=-1)


def writer(folder: Path, rank: int = 0) -> TokenWriter:
    body = CausalModel(str(folder), rank)
    made = TokenWriter(SIZES, WIDTH, body, n_words=WORDS + 1, n_signs=2, longest=None)
    made.take_words(body.load())
    return made.eval()


def test_it_says_what_the_model_says(folder: Path) -> None:
    from transformers import AutoModel

    model, made = AutoModel.from_pretrained(folder).eval(), writer(folder)
    words = torch.tensor([3, 1, 4, 1, 5])
    states = made(*flat([words + 12]))
    torch.testing.assert_close(states, model(input_ids=words[None]).last_hidden_state[0], rtol=1e-4, atol=1e-5)


def test_a_continuation_is_known_as_if_it_stood_in_its_row(folder: Path) -> None:
    made, prompts, codes = writer(folder), rows(), tuples(3, 4)
    reading = made.read(*flat(prompts))
    told = reading.logp(codes)
    for b, prompt in enumerate(prompts):
        for w in range(4):
            states = made(*flat([torch.cat([prompt, codes[b, w, :2] + torch.tensor([0, 5])])]))[-3:]
            for level in range(3):
                torch.testing.assert_close(told[level][b, w], made.logp(states[level], level), rtol=1e-3, atol=1e-4)
    steps, order = reading.steps(), torch.tensor([[2, 0, 1, 3], [3, 2, 1, 0], [0, 0, 1, 1]])
    torch.testing.assert_close(steps()[:, 0], told[0][:, 0])
    torch.testing.assert_close(
        steps(torch.zeros(3, 4, dtype=torch.int64), codes[:, :, 0]), told[1], rtol=1e-3, atol=1e-4
    )
    third = steps(order, codes[:, :, 1].gather(1, order))
    torch.testing.assert_close(third, told[2].gather(1, order.unsqueeze(-1).expand(-1, -1, 3)), rtol=1e-3, atol=1e-4)


def test_thin_matrices_learn_and_the_weights_beside_them_stay(folder: Path) -> None:
    pytest.importorskip("peft")
    plain, made = writer(folder), writer(folder, rank=2)
    x, layout = torch.randn(5, WIDTH), Layout.of(torch.tensor([0, 5]), 5, 5)
    before = plain.body.read(x, layout)[0]  # type: ignore[operator]
    torch.testing.assert_close(made.body.read(x, layout)[0], before)  # type: ignore[operator]
    learns = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert "tokens.weight" in learns and all("lora_" in name for name in learns - {"tokens.weight"})
    rule = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the outer matrices begin at 0, so the inner ones learn from the second step on
        rule.zero_grad()
        sum(-one[..., 0].mean() for one in made.read(*flat(rows())).logp(tuples(3, 2))).backward()  # type: ignore[union-attr]
        rule.step()
    moved = {name for name, p in made.named_parameters() if p.requires_grad and p.grad is not None and p.grad.any()}
    assert moved == learns
    assert not torch.allclose(made.body.read(x, layout)[0], before, atol=1e-4)  # type: ignore[operator]


def test_what_is_no_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="cannot be opened"):
        CausalModel(str(tmp_path))
