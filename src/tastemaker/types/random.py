"""Random streams derived from a seed and a purpose, so that no two uses ever share one."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A stream that depends on `seed` and `purpose` alone, not on what was drawn before it."""
    text = "\x1f".join(str(part) for part in purpose)
    words = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype=np.uint32)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed % 2**64, *map(int, words)])))


def mix(numbers: NDArray[np.integer] | int, seed: int = 0) -> NDArray[np.uint64]:
    """A fixed 64-bit hash of whole numbers (splitmix64 finaliser): the same in every process.

    Ref: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        z = np.asarray(numbers).astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def request_seeds(n: int, seed: int) -> NDArray[np.uint64]:
    """One seed a request [n], so that a request answers the same alone and in a batch."""
    return mix(np.arange(n, dtype=np.uint64), seed)
