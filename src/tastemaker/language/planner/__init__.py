"""The planner: rules over a catalogue, in the place of a language model."""

from tastemaker.language.planner.rules import Planner

__all__ = ["Planner"]
