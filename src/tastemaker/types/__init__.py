"""The nouns: frozen, columnar, batch first."""

from tastemaker.types.arrays import Array, State, pack_csr, to_numpy, unpack_csr
from tastemaker.types.attributes import Attributes, askable
from tastemaker.types.codes import Codebook, Trie
from tastemaker.types.config import Setting, SystemRef, config_to_json, make_config, setting, settings
from tastemaker.types.dataset import AVAILABLE, EVENT_COLUMNS, IMPRESSION, PASSIVE_KINDS, Dataset, infer_kind
from tastemaker.types.errors import (
    BudgetExceeded,
    BundleError,
    CapabilityError,
    ConfigError,
    DataError,
    Diverged,
    MissingExtra,
    NotFound,
    Problem,
    TastemakerError,
    UsageError,
    nearest,
    optional,
)
from tastemaker.types.files import replace_file, replace_folder
from tastemaker.types.interaction import Actions, Beam, Decoding, Feedback, Greedy, Reason, Sample, Samples
from tastemaker.types.jagged import Columns, Jagged, concat
from tastemaker.types.learning import Epochs, Optimiser, Plateau
from tastemaker.types.progress import progress, quiet
from tastemaker.types.random import generator, mix, request_seeds
from tastemaker.types.requests import REQUEST_FIELDS, ItemFilter, Requests
from tastemaker.types.schema import Column, Kind, Schema, TimeUnit
from tastemaker.types.slates import NO_ITEM, Slates
from tastemaker.types.split import PARTS, Cases, Part, Split
from tastemaker.types.storage import DATASET_FILE, to_toml
from tastemaker.types.vocabulary import UNKNOWN, Vocabulary

__all__ = [
    "AVAILABLE",
    "DATASET_FILE",
    "EVENT_COLUMNS",
    "IMPRESSION",
    "NO_ITEM",
    "PARTS",
    "PASSIVE_KINDS",
    "REQUEST_FIELDS",
    "UNKNOWN",
    "Actions",
    "Array",
    "Attributes",
    "Beam",
    "BudgetExceeded",
    "BundleError",
    "CapabilityError",
    "Cases",
    "Codebook",
    "Column",
    "Columns",
    "ConfigError",
    "DataError",
    "Dataset",
    "Decoding",
    "Diverged",
    "Epochs",
    "Feedback",
    "Greedy",
    "ItemFilter",
    "Jagged",
    "Kind",
    "MissingExtra",
    "NotFound",
    "Optimiser",
    "Part",
    "Plateau",
    "Problem",
    "Reason",
    "Requests",
    "Sample",
    "Samples",
    "Schema",
    "Setting",
    "Slates",
    "Split",
    "State",
    "SystemRef",
    "TastemakerError",
    "TimeUnit",
    "Trie",
    "UsageError",
    "Vocabulary",
    "askable",
    "concat",
    "config_to_json",
    "generator",
    "infer_kind",
    "make_config",
    "mix",
    "nearest",
    "optional",
    "pack_csr",
    "progress",
    "quiet",
    "replace_file",
    "replace_folder",
    "request_seeds",
    "setting",
    "settings",
    "to_numpy",
    "to_toml",
    "unpack_csr",
]
