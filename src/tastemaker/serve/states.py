"""A session's state as bytes and back: the frozen dataclass that a system which acts declares as its `State`.

Fields hold numbers, texts, arrays and lists or mappings of these. What is stored is JSON with arrays in base64: it
names no class and runs nothing; the system says which class it becomes. A class may carry `VERSION`; a state of another
version is refused, since a session is cheap to begin again and a wrong one is not.
"""

from __future__ import annotations

import base64
import json
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from tastemaker.train.codec import pack, unpack
from tastemaker.types import BundleError, UsageError

KINDS = frozenset("biufU")  # kinds of arrays: flags, numbers, texts of fixed width


def encoded(state: Any) -> bytes:
    """A state as bytes.

    Raises:
        UsageError: it holds something that cannot be stored.
    """
    if not is_dataclass(state) or isinstance(state, type):
        raise UsageError(f"a session's state is a dataclass, got {type(state).__name__}")
    try:
        structure, arrays = pack({field.name: getattr(state, field.name) for field in fields(state)})
    except TypeError as error:
        raise UsageError(f"a session's state cannot be stored: {error}") from error
    if wrong := [array.dtype for array in arrays.values() if array.dtype.kind not in KINDS]:
        raise UsageError(f"a session's state holds arrays of numbers and texts, got {wrong[0]}")
    held = {
        name: [array.dtype.str, list(array.shape), base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]
        for name, array in arrays.items()
    }
    return json.dumps({"version": _version(type(state)), "fields": structure, "arrays": held}).encode()


def decoded(raw: bytes, kind: type) -> Any:
    """The state that `encoded` wrote, as an instance of `kind`.

    Raises:
        BundleError: it is of another version, or damaged.
    """
    try:
        stored = json.loads(raw)
        if stored["version"] != _version(kind):
            raise BundleError("the session was begun with another version of the system", hint="begin a new session")
        arrays = {}
        for name, (dtype, shape, text) in stored["arrays"].items():
            if np.dtype(dtype).kind not in KINDS:
                raise ValueError(f"arrays of {dtype}")
            arrays[name] = np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape).copy()
        return kind(**unpack(stored["fields"], arrays))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError("the session cannot be read", hint="begin a new session") from error


def _version(kind: type) -> int:
    return int(getattr(kind, "VERSION", 1))
