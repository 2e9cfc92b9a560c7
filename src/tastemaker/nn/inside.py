"""What a fitted system keeps, as arrays, and a system inside another one: its arrays lie among the other's.

def export(self):
    return {**kept("ranker", self.ranker), "counts": self.counts}

def restore(self, state):
    self.ranker = revived("ranker", self.config.ranker, self.schema, state)
"""

from __future__ import annotations

from typing import Any

from tastemaker.contracts import find
from tastemaker.types import BundleError, Schema, State, SystemRef, make_config, to_numpy


def export_state(system: Any) -> State:
    """What a system keeps: its own `export`, or the parameters of a torch module."""
    state = system.export() if hasattr(system, "export") else system.state_dict()
    return {name: to_numpy(array) for name, array in state.items()}


def restore_state(system: Any, state: State) -> None:
    """Put back what `export_state` took."""
    if hasattr(system, "restore"):
        system.restore(state)
        return
    restore_weights(system, state)


def restore_weights(system: Any, state: State) -> None:
    """Give a torch module the weights of its `state_dict`, and set it to answer."""
    import torch

    weights = {name: torch.as_tensor(array) for name, array in state.items()}
    if bad := [name for name, w in weights.items() if w.is_floating_point() and not torch.isfinite(w).all()]:
        raise BundleError(f"the weights {bad[0]} hold values that are no numbers")
    try:
        system.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(f"the weights do not fit the system: {error}") from error
    system.eval()


def kept(name: str, system: Any) -> State:
    """What a system inside another keeps, each array's name behind the inner system's own."""
    return {f"{name}.{key}": array for key, array in export_state(system).items()}


def revived(name: str, ref: SystemRef, schema: Schema, state: State) -> Any:
    """The system that `kept` took apart. Raises BundleError where its arrays do not fit."""
    info = find(ref.name)
    system = info.cls(make_config(info.config, ref.config, of=ref.name), schema)
    restore_state(system, {key.partition(".")[2]: array for key, array in state.items() if key.startswith(f"{name}.")})
    return system
