"""A fitted pipeline: its spec, a bundle for every system, and perhaps a ranker; in memory or as a folder.

pipeline.json          the spec, what it was made with, and a hash of everything else
systems/<key>/         a bundle each; the hash of its manifest stands in pipeline.json, the manifest's hashes in it
ranker.safetensors     the ranker of a learned blend

As with bundles there is no pickle in it, and opening one executes nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from tastemaker.compose import spec as specs
from tastemaker.compose.assemble import compile  # noqa: A004 - the word for it
from tastemaker.compose.features import FeatureSchema, Network, Trained
from tastemaker.compose.pipeline import Pipeline
from tastemaker.compose.spec import PipelineSpec
from tastemaker.train import Bundle
from tastemaker.train.bundle import LARGEST_MANIFEST, MANIFEST, File
from tastemaker.types import BundleError, NotFound, UsageError, replace_folder

PIPELINE, SYSTEMS, RANKER = "pipeline.json", "systems", "ranker.safetensors"
FORMAT = 1
Hash = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class RankerFile(BaseModel):
    """The ranker's file, and what it was trained to see."""

    model_config = ConfigDict(extra="forbid")
    file: File
    lists: tuple[tuple[specs.Key, specs.Places], ...]
    columns: tuple[specs.ColumnName, ...]


class PipelineManifest(BaseModel):
    """What `pipeline.json` holds."""

    model_config = ConfigDict(extra="forbid")
    format: int
    tastemaker: str
    spec: dict[str, JsonValue]
    systems: dict[specs.Key, Hash] = Field(min_length=1, max_length=64)
    ranker: RankerFile | None = None
    about: dict[str, Any] = {}


@dataclass(eq=False)
class PipelineBundle:
    """A pipeline and everything it needs to answer.

    shelf: bundles by the keys the spec names them with
    about: provenance and figures: "data", "seed", "fit", "ranker"
    """

    spec: PipelineSpec
    shelf: Mapping[str, Any]
    ranker: Trained | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline, compiled."""
        return compile(self.spec, self.shelf, ranker=self.ranker, about=self.about)

    @property
    def name(self) -> str:
        return self.spec.name

    def with_spec(self, spec: PipelineSpec | Mapping[str, Any] | str) -> PipelineBundle:
        """The same systems and ranker under another spec: other filters, reranking, reasons. Nothing is fitted.

        Raises:
            PipelineError: the spec needs a system that is not here, or another ranker.
        """
        whole = spec if isinstance(spec, PipelineSpec) else PipelineSpec.from_json(spec)
        made = PipelineBundle(whole, self.shelf, self.ranker, self.about)
        _ = made.pipeline
        return made

    def save(self, folder: str | Path) -> Path:
        """Write everything to a folder, replacing it in one step."""
        import tastemaker

        folder = Path(folder)
        if odd := [key for key, bundle in self.shelf.items() if not isinstance(bundle, Bundle)]:
            raise UsageError(f"{odd[0]!r} is a {type(self.shelf[odd[0]]).__name__} and cannot be stored as a bundle")
        with replace_folder(folder, marker=PIPELINE) as fresh:
            for key, bundle in self.shelf.items():
                bundle.save(fresh / SYSTEMS / key)
            manifest = PipelineManifest(
                format=FORMAT,
                tastemaker=tastemaker.__version__,
                spec=self.spec.model_dump(mode="json"),
                systems={key: _sha256(fresh / SYSTEMS / key / MANIFEST) for key in self.shelf},
                ranker=None if self.ranker is None else _save_ranker(self.ranker, fresh / RANKER),
                about=self.about,
            )
            text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
            (fresh / PIPELINE).write_text(text + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> PipelineBundle:
        """Open what `save` wrote, every file checked first.

        Raises:
            NotFound: there is no pipeline at `folder`, or one of its systems is not installed.
            BundleError: it is damaged, or of another format.
            PipelineError: its spec does not fit its systems.
        """
        folder = Path(folder)
        manifest = _read(folder)
        spec = PipelineSpec.from_json(manifest.spec)
        shelf = {}
        for key, wanted in manifest.systems.items():
            home = folder / SYSTEMS / key
            if home.is_symlink() or not (home / MANIFEST).is_file() or _sha256(home / MANIFEST) != wanted:
                raise BundleError(f"{home} is missing or not the bundle that {PIPELINE} describes")
            shelf[key] = Bundle.load(home)
        ranker = None if manifest.ranker is None else _load_ranker(manifest.ranker, folder / RANKER)
        made = cls(spec, shelf, ranker, manifest.about)
        _ = made.pipeline
        return made


def _read(folder: Path) -> PipelineManifest:
    path = folder / PIPELINE
    if not path.is_file():
        hint = f"make one: tastemaker pipeline fit SPEC.json DATA --out {folder}"
        raise NotFound(f"there is no pipeline at {folder}", hint=hint)
    if path.stat().st_size > LARGEST_MANIFEST:
        raise BundleError(f"{path} is larger than it can be ({LARGEST_MANIFEST // 2**20} MB)")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            raise BundleError(f"{folder} is a pipeline of format {raw.get('format')!r}, this version reads {FORMAT}")
        return PipelineManifest.model_validate(raw)
    except (ValidationError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} describes no pipeline: {error}") from error


def _save_ranker(ranker: Trained, path: Path) -> RankerFile:
    from safetensors.numpy import save_file

    save_file(dict(ranker.network.state()), path)
    file = File(bytes=path.stat().st_size, sha256=_sha256(path))
    return RankerFile(file=file, lists=ranker.schema.lists, columns=ranker.schema.columns)


def _load_ranker(about: RankerFile, path: Path) -> Trained:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    whole = path.is_file() and not path.is_symlink() and path.stat().st_size == about.file.bytes
    if not whole or _sha256(path) != about.file.sha256:
        raise BundleError(f"{path} is missing or not the file that {PIPELINE} describes")
    schema = FeatureSchema(about.lists, about.columns)
    try:
        return Trained(schema, Network.of(load_file(path), schema.width))
    except SafetensorError as error:
        raise BundleError(f"{path} holds no arrays: {error}") from error


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
