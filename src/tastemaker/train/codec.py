"""Values of stages as plain structure plus named arrays: what is stored without pickle."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.types import (
    BundleError,
    Columns,
    Dataset,
    Jagged,
    Vocabulary,
    pack_csr,
    replace_file,
    to_numpy,
    unpack_csr,
)

Arrays = dict[str, NDArray[Any]]


def pack(value: Any, arrays: Arrays | None = None, path: str = "v") -> tuple[Any, Arrays]:
    """`value` as JSON structure and arrays; `unpack` is the inverse.

    Knows None, flags, numbers, text, lists, tuples, mappings, arrays, tensors, sparse matrices, Jagged,
    Columns and Polars frames; anything else is refused by name.
    """
    arrays = {} if arrays is None else arrays
    if value is None or isinstance(value, bool | int | float | str):
        return value, arrays
    if isinstance(value, np.generic):
        return value.item(), arrays
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(v, arrays, f"{path}.{i}")[0] for i, v in enumerate(value)]}, arrays
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a stored mapping has text keys only")
        return {"dict": {key: pack(v, arrays, f"{path}.{key}")[0] for key, v in value.items()}}, arrays
    if isinstance(value, np.ndarray) or hasattr(value, "detach"):
        arrays[path] = np.asarray(to_numpy(value), order="C")  # ascontiguousarray would make a scalar a row
        return {"array": path}, arrays
    if sp.issparse(value):
        matrix = sp.csr_array(value)
        arrays.update(pack_csr(path, matrix))
        return {"csr": path}, arrays
    if isinstance(value, Columns):
        return {"columns": {k: pack(v, arrays, f"{path}.{k}")[0] for k, v in value.items()}, "n": value.n_rows}, arrays
    if isinstance(value, Jagged):
        arrays[f"{path}.offsets"] = value.offsets
        return {"jagged": pack(value.values, arrays, f"{path}.values")[0], "offsets": f"{path}.offsets"}, arrays
    if isinstance(value, pl.DataFrame):
        buffer = io.BytesIO()
        value.write_parquet(buffer)
        arrays[path] = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
        return {"frame": path}, arrays
    raise TypeError(f"a stage's value of type {type(value).__name__} cannot be stored")


def unpack(structure: Any, arrays: Arrays) -> Any:
    """The value `pack` packed."""
    if not isinstance(structure, dict):
        return structure
    match structure:
        case {"list": rows}:
            return [unpack(row, arrays) for row in rows]
        case {"tuple": rows}:
            return tuple(unpack(row, arrays) for row in rows)
        case {"dict": rows}:
            return {key: unpack(row, arrays) for key, row in rows.items()}
        case {"array": path}:
            return arrays[path]
        case {"csr": path}:
            return unpack_csr(path, arrays)
        case {"columns": rows, "n": n}:
            return Columns({key: unpack(row, arrays) for key, row in rows.items()}, size=n)
        case {"jagged": values, "offsets": path}:
            return Jagged(unpack(values, arrays), arrays[path])
        case {"frame": path}:
            return pl.read_parquet(io.BytesIO(arrays[path].tobytes()))
    raise BundleError(f"unknown structure {structure!r}")


def store(value: Any, file: Path) -> None:
    """Write a value to one safetensors file, all or nothing."""
    structure, arrays = pack(value)
    from safetensors.numpy import save_file

    with replace_file(file) as fresh:
        save_file(arrays or {"": np.zeros(0, dtype=np.uint8)}, fresh, metadata={"structure": json.dumps(structure)})


def recall(file: Path) -> Any:
    """Read a value that `store` wrote."""
    from safetensors import safe_open

    with safe_open(file, framework="np") as stored:
        structure = json.loads((stored.metadata() or {})["structure"])
        return unpack(structure, {key: stored.get_tensor(key) for key in stored.keys() if key})  # noqa: SIM118


def content_key(*values: Any) -> str:
    """A hash of contents: equal for equal values, in any process."""
    total = hashlib.blake2b(digest_size=20)
    for value in values:
        _feed(total, value)
    return total.hexdigest()


def _feed(total: Any, value: Any) -> None:
    total.update(f"<{type(value).__name__}>".encode())
    if isinstance(value, Dataset):
        total.update(value.fingerprint.encode())
    elif isinstance(identity := getattr(value, "identity", None), str):  # an encoder, a language model, a world
        total.update(identity.encode())
    elif isinstance(value, Vocabulary):
        _feed(total, value.series.to_frame())
    elif isinstance(value, list | tuple):
        for row in value:
            _feed(total, row)
    elif isinstance(value, dict):
        for key in sorted(value):
            _feed(total, key)
            _feed(total, value[key])
    elif is_dataclass(value) and not isinstance(value, type | Jagged):
        for part in fields(value):
            _feed(total, part.name)
            _feed(total, getattr(value, part.name))
    else:
        structure, arrays = pack(value)
        total.update(json.dumps(structure).encode())
        for name, array in arrays.items():
            total.update(f"{name}:{array.dtype}:{array.shape};".encode())
            total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
