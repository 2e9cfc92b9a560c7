"""An open-weight language model as the body of a writer of tokens (extra "language").

Only the blocks of a model that writes from left to right are taken: vectors go in, states come out, and what was read
is kept as keys and values, from which several continuations go on. With `rank` its weights stay as they are, and thin
matrices beside them learn.

Weights are read from safetensors files alone, and no code that comes with a model is run.

Ref: Hu et al., "LoRA", arXiv:2106.09685.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tastemaker.nn.ragged import Layout
from tastemaker.nn.transformer import Pair
from tastemaker.types import UsageError, optional


class CausalModel(nn.Module):
    """See `tastemaker.nn.token_writer.Body`. It is built as the model is, with weights of its own; `load` takes the
    model's.

    Args:
        name: of a model, or the folder it lies in.
        rank: width of the thin matrices beside each layer; 0: the weights themselves learn.
    """

    def __init__(self, name: str, rank: int = 0) -> None:
        super().__init__()
        self.name = name
        library = self._library()
        try:
            config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise self._cannot(error) from error
        self.dim, self.n_words = int(config.hidden_size), int(config.vocab_size)
        self.model = library.AutoModel.from_config(config)
        self.model.set_input_embeddings(nn.Identity())  # vectors come from outside
        if rank:
            peft = optional("peft", extra="language", why="learning thin matrices beside a language model")
            thin = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear")
            peft.inject_adapter_in_model(thin, self.model)

    def load(self) -> Tensor:
        """Take the weights of the model by this name; returns the vectors of its words [V, D]."""
        try:
            found = self._library().AutoModel.from_pretrained(self.name, use_safetensors=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise self._cannot(error) from error
        vectors: Tensor = found.get_input_embeddings().weight.detach()
        found.set_input_embeddings(nn.Identity())
        own = self.model.state_dict()
        with torch.no_grad():
            for name, weights in found.state_dict().items():
                stem, _, last = name.rpartition(".")
                own[name if name in own else f"{stem}.base_layer.{last}"].copy_(weights)
        return vectors

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """[N, D] to [N, D]."""
        told = self.model(inputs_embeds=layout.pad(x), attention_mask=layout.filled().long(), use_cache=False)
        return layout.flat(told.last_hidden_state)

    def read(self, x: Tensor, layout: Layout) -> tuple[Tensor, list[Pair]]:
        """The same, and keys and values [B, H, L, E] of each layer."""
        mask = layout.filled().long()
        told = self.model(inputs_embeds=layout.pad(x), attention_mask=mask, use_cache=True)
        return layout.flat(told.last_hidden_state), [(one.keys, one.values) for one in told.past_key_values.layers]

    def go_on(
        self, x: Tensor, seen: Sequence[Pair], visible: Tensor, past: Sequence[Pair] | None = None
    ) -> tuple[Tensor, list[Pair]]:
        """Continuations [B, W, t, D] of what was seen of rows, where it is visible [B, L], after `past` of them."""
        b, w, t, _ = x.shape
        length, before = visible.shape[1], 0 if past is None else past[0][0].shape[3]
        cache = self._library().DynamicCache()
        for n, (keys, values) in enumerate(seen):
            kept = [part.repeat_interleave(w, dim=0) for part in (keys, values)]
            if past is not None:
                kept = [torch.cat([one, two.flatten(0, 1)], dim=2) for one, two in zip(kept, past[n], strict=True)]
            cache.update(*kept, n)
        mask = torch.cat([visible.long(), visible.new_ones(b, before + t, dtype=torch.int64)], dim=1)
        places = visible.sum(dim=1, keepdim=True) + torch.arange(before, before + t, device=x.device)
        told = self.model(
            inputs_embeds=x.flatten(0, 1),
            attention_mask=mask.repeat_interleave(w, dim=0),
            position_ids=places.repeat_interleave(w, dim=0),
            past_key_values=cache,
            use_cache=True,
        )
        written = [
            (one.keys[:, :, length:].unflatten(0, (b, w)), one.values[:, :, length:].unflatten(0, (b, w)))
            for one in told.past_key_values.layers
        ]
        return told.last_hidden_state.view(x.shape), written

    def _library(self) -> Any:
        return optional("transformers", extra="language", why=f"the language model {self.name!r}")

    def _cannot(self, error: Exception) -> UsageError:
        return UsageError(
            f"the language model {self.name!r} cannot be opened: {str(error).splitlines()[0]}",
            hint="the name of a model with safetensors weights, or its folder",
        )
