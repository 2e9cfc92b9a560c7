"""How a server behaves: limits, where its log is, what it writes down. Read from the environment where not given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tastemaker.types import ConfigError

PREFIX = "TASTEMAKER_"


class Settings(BaseModel):
    """Settings of a server; each can be given as an environment variable, as TASTEMAKER_LOG_URL."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    log_url: str = Field(default="sqlite:///tastemaker-log.db", description="Database of the event log.")
    sessions_url: str | None = Field(default=None, description="Where sessions are kept; default: beside the log.")
    experiments_file: Path | None = Field(default=None, description="Experiments, as JSON; default: none.")
    pipelines_dir: Path | None = Field(default=None, description="Folder of pipelines, as JSON.")
    reports_dir: Path | None = Field(default=None, description="What `choose` wrote: its leaderboard is shown.")
    keys_file: Path | None = Field(default=None, description="Hashes of API keys; without it everybody may ask.")
    capacity: int = Field(default=512, ge=1, description="Questions that may wait for a system; more are refused.")
    batch: int = Field(default=128, ge=1, description="Questions answered at once.")
    workers: int | None = Field(default=None, ge=1, description="Batches at work at once; default: all cores but one.")
    timeout: float = Field(default=5.0, gt=0, description="Seconds an answer may take.")
    body_bytes: int = Field(default=1_000_000, ge=1000, description="Largest body of a request.")
    rate: float = Field(default=0.0, ge=0, description="Requests a second for one key or address; 0: no limit.")
    burst: int = Field(default=50, ge=1, description="Requests that may come at once before the rate counts.")
    cors: tuple[str, ...] = Field(default=(), description="Origins whose pages may ask; default: none.")
    log_slates: bool = Field(default=True, description="Write down every list that is answered.")
    shared_log: bool = Field(default=False, description="Other processes write to the log too.")
    learn_every: float = Field(default=1.0, gt=0, description="Seconds between snapshots of a system that learns.")
    keep_every: float = Field(default=60.0, gt=0, description="Seconds between files of what such a system has learnt.")
    learnt_dir: Path | None = Field(default=None, description="Folder of these files; default: beside a log in a file.")
    learning_url: str | None = Field(
        default=None, description="Redis in which server processes share what they learn; default: each reads the log."
    )
    turns: int = Field(default=16, ge=1, description="Turns of sessions at work at once; more are refused.")
    turn_seconds: float = Field(default=60.0, gt=0, description="Seconds a turn of a session may take.")
    chat_url: str | None = Field(
        default=None, description="An OpenAI-compatible endpoint for systems that converse; default: the rules within."
    )
    chat_model: str | None = Field(default=None, description="The model to ask for there.")
    chat_key_variable: str = Field(default="", description="Environment variable that holds its key; empty: none.")
    session_seconds: int = Field(default=3600, ge=1, description="Seconds a session lives after its last turn.")
    mcp: bool = Field(default=True, description="Offer the tools to agents, at /mcp.")
    web: bool = Field(default=True, description="Serve the web app.")

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Settings from the environment, overruled by what is given and not None.

        Raises:
            ConfigError: a value does not fit.
        """
        found: dict[str, Any] = {}
        for name in cls.model_fields:
            if (value := os.environ.get(PREFIX + name.upper())) not in (None, ""):
                found[name] = tuple(str(value).split(",")) if name == "cors" else value
        found |= {name: value for name, value in given.items() if value is not None}
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise ConfigError(f"the server's setting {name}: {first['msg']}, got {first['input']!r}") from error
