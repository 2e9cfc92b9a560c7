"""Writing that is all or nothing: a reader sees the old folder or the new one, never a mixture."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tastemaker.types.errors import UsageError


@contextmanager
def replace_folder(target: str | Path, *, overwrite: bool = True, marker: str | None = None) -> Iterator[Path]:
    """Write into a temporary folder beside `target`; on success it takes the target's place at once.

    An error, or Ctrl-C, leaves the old folder as it was. `marker` names a file that an existing target must
    hold to be replaced, so that a mistyped path never removes something else.
    """
    target = Path(target)
    if target.exists():
        if not overwrite:
            raise UsageError(f"{target} is already there", hint="choose another place, or allow overwriting it")
        if not target.is_dir() or (marker and any(target.iterdir()) and not (target / marker).exists()):
            raise UsageError(f"{target} is there and holds no {marker or 'folder'}: it is left alone")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    os.chmod(fresh, 0o755)
    try:
        yield fresh
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            os.rename(target, old / "was")
            try:
                os.rename(fresh, target)
            except BaseException:
                os.rename(old / "was", target)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


@contextmanager
def replace_file(target: str | Path) -> Iterator[Path]:
    """Write to a temporary file beside `target` that takes its place when the block ends well."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    fresh = Path(name)
    try:
        yield fresh
        os.chmod(fresh, 0o644)
        os.replace(fresh, target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
