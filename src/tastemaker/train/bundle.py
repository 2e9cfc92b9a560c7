"""A bundle: a fitted system with all it needs to answer, in memory or as a folder. No pickle anywhere.

manifest.json          what it is, how it was made, a hash of every other file
weights.safetensors    what the system keeps
users.parquet          outside ids of users, in the order of their numbers
catalogue.parquet      items: outside ids and columns, in the order of their numbers
histories.safetensors  what each user chose so far (may be left out)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tastemaker.contracts import Binds, Resources, SystemInfo, find
from tastemaker.index import retriever
from tastemaker.nn.inside import export_state, restore_state, restore_weights
from tastemaker.types import (
    BundleError,
    Columns,
    Dataset,
    Jagged,
    NotFound,
    Schema,
    State,
    Vocabulary,
    config_to_json,
    make_config,
    replace_folder,
)

__all__ = ["Bundle", "Manifest", "bind", "export_state", "histories_of", "restore_state", "restore_weights"]

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
USERS = "users.parquet"
CATALOGUE = "catalogue.parquet"
HISTORIES = "histories.safetensors"
FORMAT = 1
LARGEST_MANIFEST = 16 * 2**20


class File(BaseModel):
    """Size and hash of one file of a bundle."""

    model_config = ConfigDict(extra="forbid")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What `manifest.json` holds."""

    model_config = ConfigDict(extra="forbid")
    format: int
    tastemaker: str
    system: str
    version: int
    config: dict[str, Any]
    data_schema: dict[str, Any] = Field(alias="schema")
    learns_from: list[str]
    needs: list[str]
    uses: list[str]
    capabilities: list[str]
    files: dict[str, File]
    about: dict[str, Any] = {}


@dataclass(eq=False)
class Bundle:
    """A fitted system, the ids it knows, its catalogue, and where it comes from.

    about: provenance and figures: "data" (name, fingerprint), "seed", "fit" (seconds, peak_mb), "metrics", ...
    """

    system: Any
    info: SystemInfo
    config: Any
    schema: Schema
    users: Vocabulary
    catalogue: pl.DataFrame
    histories: Jagged[Columns] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def items(self) -> Vocabulary:
        """Outside ids of the items."""
        return Vocabulary(self.catalogue["item"], of="item")

    @cached_property
    def retriever(self) -> Any:
        """Turns requests into lists, whatever the system's capabilities are."""
        return retriever(self.system)

    @property
    def name(self) -> str:
        return self.info.name

    def __repr__(self) -> str:
        return f"Bundle({self.name}: {len(self.users):,} users, {self.catalogue.height:,} items)"

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        *,
        history: Iterable[Iterable[Any]] | None = None,
        k: int = 10,
        **more: Any,
    ) -> pl.DataFrame:
        """The best `k` items for users by id, or for histories given as lists of item ids.

        Returns one row a recommendation: request, user (where given), rank, item, score, title (where there
        is one). See `tastemaker.train.answer.recommend` for the further options: exclude, candidates,
        filter, seen, columns.
        """
        from tastemaker.train.answer import recommend

        return recommend(self, users, history=history, k=k, **more)

    def save(self, folder: str | Path) -> Path:
        """Write the bundle to a folder, replacing it in one step."""
        from safetensors.numpy import save_file

        import tastemaker

        folder = Path(folder)
        with replace_folder(folder, marker=MANIFEST) as fresh:
            _save_arrays(save_file, export_state(self.system), fresh / WEIGHTS)
            self.users.series.to_frame("user").write_parquet(fresh / USERS)
            self.catalogue.write_parquet(fresh / CATALOGUE)
            if self.histories is not None:
                arrays = {"offsets": self.histories.offsets, **self.histories.values}
                _save_arrays(save_file, arrays, fresh / HISTORIES)
            manifest = Manifest(
                format=FORMAT,
                tastemaker=tastemaker.__version__,
                system=self.info.name,
                version=self.info.version,
                config=config_to_json(self.config),
                schema=self.schema.to_json(),
                learns_from=sorted(self.info.learns_from),
                needs=sorted(self.info.needs),
                uses=sorted(self.info.uses),
                capabilities=list(self.info.capabilities),
                files={path.name: _file(path) for path in sorted(fresh.iterdir())},
                about=self.about,
            )
            text = json.dumps(manifest.model_dump(by_alias=True), indent=1, ensure_ascii=False)
            (fresh / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path, resources: Resources | None = None) -> Bundle:
        """Open a bundle. Nothing in it is executed; every file is checked against the manifest first.

        Args:
            resources: what to bind to a system that leans on some; the catalogue is the bundle's own.

        Raises:
            NotFound: there is no bundle at `folder`, or its system is not installed.
            BundleError: the bundle is damaged, or of another format or version.
            CapabilityError: the system cannot do without a resource that is not given.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        info = find(manifest.system)
        if manifest.version != info.version:
            raise BundleError(
                f"{folder} holds {info.name} version {manifest.version}, this installation has version {info.version}",
                hint="fit it again, or install the version of tastemaker it was made with: " + manifest.tastemaker,
            )
        try:
            schema = Schema.from_json(manifest.data_schema)
            users = Vocabulary(pl.read_parquet(folder / USERS)["user"], of="user")
            catalogue = pl.read_parquet(folder / CATALOGUE)
            if len(users) != schema.n_users or catalogue.height != schema.n_items:
                raise BundleError(f"{folder}: the vocabularies do not have the sizes that the manifest states")
            config = make_config(info.config, manifest.config, of=info.name)
            system = info.cls(config, schema)
            restore_state(system, _load_arrays(folder / WEIGHTS))
            histories = _load_histories(folder / HISTORIES, schema) if HISTORIES in manifest.files else None
        except (KeyError, TypeError, ValueError, OSError, pl.exceptions.PolarsError) as error:
            raise BundleError(f"{folder} cannot be opened: {error}") from error
        bind(system, catalogue, resources)
        return cls(system, info, config, schema, users, catalogue, histories, manifest.about)


def bind(system: Any, catalogue: pl.DataFrame, resources: Resources | None = None) -> None:
    """Give a system that leans on resources the catalogue it speaks of, and what else there is."""
    if isinstance(system, Binds):
        system.bind(replace(resources or Resources(), catalogue=catalogue))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle at `folder`, its files checked by size and hash."""
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFound(
            f"there is no bundle at {folder}", hint="make one: tastemaker fit SYSTEM --data DATA --out " + str(folder)
        )
    if path.stat().st_size > LARGEST_MANIFEST:
        raise BundleError(f"{path} is larger than a manifest can be ({LARGEST_MANIFEST // 2**20} MB)")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            raise BundleError(f"{folder} is a bundle of format {raw.get('format')!r}, this version reads {FORMAT}")
        manifest = Manifest.model_validate(raw)
    except (ValidationError, ValueError) as error:
        raise BundleError(f"{path} is not a manifest: {error}") from error
    if not {WEIGHTS, USERS, CATALOGUE} <= set(manifest.files) <= {WEIGHTS, USERS, CATALOGUE, HISTORIES}:
        raise BundleError(f"{path} lists the files {sorted(manifest.files)}, which is not what a bundle holds")
    for name, wanted in manifest.files.items():
        file = folder / name
        if (
            not file.is_file()
            or file.is_symlink()
            or file.stat().st_size != wanted.bytes
            or _sha256(file) != wanted.sha256
        ):
            raise BundleError(f"{file} is missing or not the file that the manifest describes")
    return manifest


def histories_of(data: Dataset) -> Jagged[Columns]:
    """What each user of `data` chose, as a bundle keeps it."""
    kept = [name for name in ("item", "time", "value") if name in data.events.columns]
    return data.histories(tuple(kept))


def _save_arrays(save_file: Any, arrays: Mapping[str, Any], path: Path) -> None:
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(whole or {"none": np.zeros(0, dtype=np.uint8)}, path)


def _load_arrays(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BundleError(f"{path} holds no arrays: {error}") from error


def _load_histories(path: Path, schema: Schema) -> Jagged[Columns]:
    arrays = dict(_load_arrays(path))
    histories = Jagged(Columns({n: a for n, a in arrays.items() if n != "offsets"}), arrays["offsets"])
    items = histories.values["item"]
    if len(histories) != schema.n_users or (len(items) and not -1 <= items.min() <= items.max() < schema.n_items):
        raise BundleError(f"{path} does not fit the sizes that the manifest states")
    return histories


def _file(path: Path) -> File:
    return File(bytes=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
