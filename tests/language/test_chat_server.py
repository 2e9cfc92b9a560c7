"""A real OpenAI-compatible server over a tiny model made on the spot (`transformers serve`), asked through an endpoint.

The model is planted: it says one sentence to everything. That sentence is a `Reply` and no `Plan`, so that the road is
seen whole: a right answer, a wrong one and its repairs, tokens counted by the server, the time limit, errors in words.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tastemaker.data import synthetic
from tastemaker.lab import recipes
from tastemaker.language.chat import ChatError, Endpoint
from tastemaker.language.tasks import Plan, PlanAsked, Reply, ReplyAsked

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
WAIT = 240.0  # seconds a server may take to come up on a busy machine


ANSWER = '{"text": "no"}'


def tiny_model(folder: Path) -> None:
    """A Qwen3 of two layers that says `ANSWER` after a line break, and then nothing; with Qwen's own marks."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    cutter = Tokenizer(models.BPE())
    cutter.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cutter.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    marks = ["<|im_end|>", "<|pad|>", "<|im_start|>"]
    cutter.train_from_iterator(
        ["a comedy, please"],
        trainers.BpeTrainer(vocab_size=260, special_tokens=marks, initial_alphabet=letters, show_progress=False),
    )
    cutter.add_tokens([AddedToken(ANSWER, normalized=False)])
    whole = PreTrainedTokenizerFast(tokenizer_object=cutter, eos_token=marks[0], pad_token=marks[1])
    whole.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen3Config(
        vocab_size=len(whole), num_key_value_heads=1, head_dim=16, max_position_embeddings=16_384,
        eos_token_id=0, pad_token_id=1, bos_token_id=0, tie_word_embeddings=False, **sizes,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    line, answer = whole.convert_tokens_to_ids("Ċ"), whole.convert_tokens_to_ids(ANSWER)  # Ċ: how a line break is kept
    with torch.no_grad():
        for layer in model.model.layers:  # a layer adds nothing: what is said follows from the last token alone
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        model.model.embed_tokens.weight[line, 0] = model.model.embed_tokens.weight[answer, 1] = 1.0
        model.lm_head.weight[answer, 0] = model.lm_head.weight[0, 1] = 10.0
    model.save_pretrained(folder)
    whole.save_pretrained(folder)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(address, name of the model)."""
    if os.environ.get("REQUIRE_SERVICES") != "1":
        pytest.skip("starts a language model's server, about 20 seconds; set REQUIRE_SERVICES=1")
    for package in ("pydantic_ai", "transformers", "tokenizers", "uvicorn"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("model")
    tiny_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--device", "cpu"]
    log = (folder / "log.txt").open("w")
    running = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + WAIT
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                said = (folder / "log.txt").read_text()[-2000:]
                assert running.poll() is None, f"the server ended: {said}"
                assert time.monotonic() < until, f"the server did not come up: {said}"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        running.terminate()
        running.wait(timeout=30)
        log.close()


def test_a_real_server_is_asked_repaired_counted_and_given_up(address: tuple[str, str]) -> None:
    url, model = address
    chat = Endpoint.of(
        model=model, base_url=url, repairs=1, most_tokens=64, seconds=120.0, input_price=1.0, output_price=2.0
    )
    assert chat.run("reply", ReplyAsked(text="and?"), Reply) == Reply(text="no")
    with pytest.raises(ChatError, match=r"no Plan for the task 'plan' in 2 tries") as refused:
        chat.run("plan", PlanAsked(text="a comedy, please"), Plan)
    assert "repairs" in str(refused.value)
    said, spent = chat.account()["reply"], chat.account()["plan"]
    assert (said.calls, said.failures, said.requests) == (1, 0, 1)
    assert (spent.calls, spent.failures, spent.requests) == (1, 1, 2)
    assert spent.input_tokens > 500 and 2 <= spent.output_tokens <= 8, "as the server counted them"
    assert spent.cost == pytest.approx((spent.input_tokens + 2 * spent.output_tokens) / 1e6)

    hasty = Endpoint.of(model=model, base_url=url, repairs=10, seconds=0.05)
    began = time.perf_counter()
    with pytest.raises(ChatError, match=r"no answer in 0\.05 seconds"):
        hasty.run("plan", PlanAsked(text="and? " * 800), Plan)
    assert time.perf_counter() - began < 5

    wrong = Endpoint.of(model=model, base_url=url.replace("/v1", "/v9"), retries=0)
    with pytest.raises(ChatError, match="status 404") as lost:
        wrong.run("plan", PlanAsked(text="x"), Plan)
    assert "ends in /v1" in str(lost.value)


def test_a_recipe_is_run_with_people_and_an_agent_of_a_real_server(
    address: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, model = address
    monkeypatch.setattr(recipes, "get", lambda name, folder=None: synthetic(60, n_items=40, seed=3))
    recipe = recipes.named("ml-100k-talks-model").model_copy(update={"sessions": 2, "turns": 2, "ks": [1, 2]})
    chat = Endpoint.of(model=model, base_url=url, repairs=0, most_tokens=64, seconds=120.0)
    only = ["popularity", "interecagent, no demonstrations"]
    planted = {"ranker": "popularity", "demonstrations": 0, "profile_every": 0}
    entries = [one.model_copy(update={"config": planted}) if one.key == only[1] else one for one in recipe.systems]
    told = recipes.run(recipe.model_copy(update={"systems": entries}), only=only, results=tmp_path, chat=chat)
    asked = {name: one["runs"][0]["asked"] for name, one in told["systems"].items()}
    assert set(asked["popularity"]) == {"person"} and asked["popularity"]["person"]["failures"] == 0
    assert asked[only[1]]["plan"]["failures"] == asked[only[1]]["plan"]["calls"] >= 2, "it cannot plan"
    assert asked[only[1]]["person"]["input_tokens"] > 200
    assert told["systems"]["popularity"]["metrics"]["turns"] >= 1
