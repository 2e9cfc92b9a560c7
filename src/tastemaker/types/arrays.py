"""Arrays as systems return them, and sparse matrices as bundles store them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.types.errors import BundleError

if TYPE_CHECKING:
    import torch

Array: TypeAlias = Union[NDArray[Any], "torch.Tensor"]
"""A NumPy array or a torch tensor; `to_numpy` makes the first of either."""

State: TypeAlias = Mapping[str, NDArray[Any]]
"""What a system keeps: named arrays."""


def to_numpy(array: Any) -> NDArray[Any]:
    """The array on the host, without gradient; no copy where none is needed."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if str(array.dtype) == "torch.bfloat16" else array
    return np.asarray(array)


def pack_csr(name: str, matrix: sp.csr_array) -> dict[str, NDArray[Any]]:
    """A sparse matrix as four named arrays."""
    return {
        f"{name}.data": matrix.data,
        f"{name}.indices": matrix.indices.astype(np.int32, copy=False),
        f"{name}.indptr": matrix.indptr.astype(np.int64, copy=False),
        f"{name}.shape": np.asarray(matrix.shape, dtype=np.int64),
    }


def unpack_csr(name: str, state: State) -> sp.csr_array:
    """The matrix `pack_csr` packed. Its structure is checked: arrays may come from a stranger."""
    try:
        data, indices, indptr = (state[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
        n_rows, n_columns = map(int, state[f"{name}.shape"])
    except (KeyError, ValueError, TypeError) as error:
        raise BundleError(f"the sparse matrix {name!r} is not whole: {error}") from error
    fits = indptr.shape == (n_rows + 1,) and indices.shape == data.shape == (int(indptr[-1]),) and indptr[0] == 0
    inside = len(indices) == 0 or (indices.min() >= 0 and indices.max() < n_columns)
    if not fits or (np.diff(indptr) < 0).any() or not inside:
        raise BundleError(f"the sparse matrix {name!r} is damaged: its indices do not fit its shape")
    return sp.csr_array((data, indices, indptr), shape=(n_rows, n_columns))
