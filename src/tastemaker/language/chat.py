"""A language model behind any OpenAI-compatible endpoint, asked typed questions (extra "agents").

    chat = Endpoint.of(model="qwen3", base_url="http://127.0.0.1:8000/v1")      # a server of one's own: no key
    chat = Endpoint.of(model="gpt-5-mini", key_variable="OPENAI_API_KEY", input_price=0.25, output_price=2.0)
    plan = chat.run("plan", PlanAsked(text="a comedy"), Plan)
    chat.account()["plan"]                                              # calls, tokens, seconds, cost

What is sent: the instructions of the task, and what is given as a block of data (`language/prompts.py`); to `base_url`
and nowhere else. An answer that does not have the wanted form is sent back with what is wrong, `repairs` times at most.
Keys come from the environment alone, and are cut out of whatever an endpoint says before anybody reads it.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from tastemaker.language.accounts import Ledger, Spent
from tastemaker.language.prompts import Prompt, render
from tastemaker.types import ConfigError, TastemakerError, UsageError, optional, setting

S = TypeVar("S")
T = TypeVar("T")
VERSION = 1
OPENAI = "https://api.openai.com/v1"
SHOWN = 300  # characters of what an endpoint said that a message shows


class ChatError(TastemakerError):
    """A language model gave no answer: it cannot be reached, was too slow, refused, or answered in no usable form."""

    exit_code = 9


@dataclass(frozen=True)
class EndpointConfig:
    """Where a language model is, and how it is asked."""

    model: str = setting("", "The model's name at the endpoint.")
    base_url: str = setting(OPENAI, "Address of the endpoint, up to /v1.")
    key_variable: str = setting("", "The environment variable that holds the key; empty: none is sent.")
    form: Literal["tool", "schema", "prompt"] = setting(
        "prompt",
        "How the answer's form is asked for: as a tool's arguments, as a schema the endpoint enforces, or in words.",
        choices=("tool", "schema", "prompt"),
    )
    repairs: int = setting(2, "How often an answer of the wrong form is sent back.", low=0, high=10)
    retries: int = setting(1, "How often a request is sent again that met a full or failing server.", low=0, high=10)
    seconds: float = setting(30.0, "Time a question may take, repairs and retries included.", low=0.05, high=3600)
    most_tokens: int = setting(1024, "Most tokens of an answer.", low=1, high=1_000_000)
    temperature: float | None = setting(0.0, "Temperature; None leaves it to the endpoint.", low=0, high=2)
    input_price: float = setting(0.0, "Price of a million tokens read.", low=0)
    output_price: float = setting(0.0, "Price of a million tokens written.", low=0)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url is an address as {OPENAI}")
        if parts.username or parts.password or parts.query:
            raise ValueError("base_url holds no key, name or password: name the variable that does in key_variable")


class Endpoint:
    """A `ChatModel` over HTTP. Threads may share it."""

    def __init__(self, config: EndpointConfig) -> None:
        if not config.model:
            raise UsageError("an endpoint needs the name of a model", hint="Endpoint.of(model='...', base_url='...')")
        self.config = config
        self._ledger = Ledger()
        self._loop_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def of(cls, **settings: Any) -> Endpoint:
        """From settings by name; unknown ones are refused."""
        from tastemaker.types import make_config

        return cls(make_config(EndpointConfig, settings, of="an endpoint"))

    @cached_property
    def identity(self) -> str:
        """Name, address and all that changes an answer; no key."""
        c = self.config
        return f"endpoint-{VERSION}-{c.model}@{c.base_url.rstrip('/')}-{c.form}-{c.temperature}-{c.most_tokens}"

    def __repr__(self) -> str:
        return f"Endpoint({self.config.model!r} at {self.config.base_url})"

    def account(self) -> dict[str, Spent]:
        """What each task cost, failed questions included."""
        return self._ledger.account()

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        """Answer a typed task.

        Raises:
            ChatError: no answer came in time, or none of the wanted form; the message says what to do.
        """
        prompt = render(task, given)
        library = _library("pydantic_ai")
        key = self._key()
        usage = library.usage.RunUsage()
        began, failed = time.perf_counter(), 1
        try:
            answer: S = self._wait(self._ask(prompt, wanted, usage, key))
            failed = 0
            return answer
        except TimeoutError:
            raise self._late() from None
        except library.exceptions.AgentRunError as error:  # `from None`: what is beneath may show the key
            raise self._said(error, f"{wanted.__name__} for the task {task!r}", usage.requests, key, library) from None
        finally:
            c = self.config
            cost = (usage.input_tokens * c.input_price + usage.output_tokens * c.output_price) / 1e6
            self._ledger.add(
                task,
                Spent(
                    calls=1,
                    failures=failed,
                    requests=usage.requests,
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    seconds=time.perf_counter() - began,
                    cost=cost,
                ),
            )

    # -- asking

    async def _ask(self, prompt: Prompt, wanted: type[S], usage: Any, key: str) -> S:
        ai = _library("pydantic_ai")
        forms = {"tool": ai.ToolOutput, "schema": ai.NativeOutput, "prompt": ai.PromptedOutput}
        c = self.config
        asked: dict[str, Any] = {"max_tokens": c.most_tokens}
        if c.temperature is not None:
            asked["temperature"] = c.temperature
        agent = ai.Agent(
            self._model(key),
            output_type=forms[c.form](wanted),
            instructions=prompt.instructions,
            retries=c.repairs,
            model_settings=asked,
        )
        async with asyncio.timeout(c.seconds):
            done = await agent.run(prompt.message, usage=usage)
        answer: S = done.output
        return answer

    def _model(self, key: str) -> Any:
        """The model as the library sees it, its connections kept; made within the loop that uses them."""
        known: tuple[str, Any] | None = getattr(self, "_made", None)
        if known is None or known[0] != key:
            client = _library("openai").AsyncOpenAI(
                base_url=self.config.base_url,
                api_key=key or "none",  # the library wants one; a server that asks for none ignores it
                max_retries=self.config.retries,
                timeout=self.config.seconds,
            )
            provider = _library("pydantic_ai.providers.openai").OpenAIProvider(openai_client=client)
            known = key, _library("pydantic_ai.models.openai").OpenAIChatModel(self.config.model, provider=provider)
            self._made = known
        return known[1]

    def _key(self) -> str:
        name = self.config.key_variable
        if not name:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise ChatError(
                f"the key for {self.config.base_url} should be in the environment variable {name}, which is not set",
                hint=f"export {name}=... , or leave key_variable empty for a server that asks for no key",
            )
        return key

    def _wait(self, asked: Coroutine[Any, Any, T]) -> T:
        """Run on a loop of this endpoint's own, so that connections outlive a question and any thread may ask."""
        with self._loop_lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="chat endpoint", daemon=True).start()
                weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # -- what went wrong

    def _late(self) -> ChatError:
        return ChatError(
            f"{self.config.model} at {self.config.base_url} gave no answer in {self.config.seconds:g} seconds",
            hint="allow more (seconds), ask a faster model, or use the embedded planner",
        )

    def _said(self, error: Exception, what: str, tries: int, key: str, library: Any) -> ChatError:
        """What went wrong, in terms of what can be done about it."""
        c, kinds = self.config, library.exceptions
        where = f"{c.model} at {c.base_url}"
        if "timed out" in str(error).lower() or "timeout" in type(error).__name__.lower():
            return self._late()
        if isinstance(error, kinds.ModelHTTPError):
            status = getattr(error, "status_code", 0)
            said = hidden(str(getattr(error, "body", "") or error), key)
            other = "the endpoint's own log says more" if status >= 500 else "check `form`: some know only 'prompt'"
            hint = {
                401: f"check the key in {c.key_variable}" if c.key_variable else "name the variable of the key",
                403: "the key does not allow this model",
                404: "check the model's name and the address, which ends in /v1 as a rule",
                429: "too many requests, or no credit left: wait, or raise `retries`",
            }.get(status, other)
            return ChatError(f"{where} answered with status {status}: {said}", hint=hint)
        if isinstance(error, kinds.UnexpectedModelBehavior):
            if "token" in str(error).lower() and "limit" in str(error).lower():
                return ChatError(
                    f"{where} gave no {what}: its answer was cut at {c.most_tokens} tokens",
                    hint="allow more most_tokens",
                )
            why = hidden(f"{error}. {error.__cause__ or error.__context__ or ''}", key)
            return ChatError(
                f"{where} gave no {what} in {tries} tries: {why}",
                hint="allow more `repairs`, try another `form`, or a model that follows instructions",
            )
        return ChatError(
            f"{where} cannot be reached: {hidden(str(error), key)}", hint="is the server up, and the address right?"
        )


def open_chat(url: str | None, model: str | None, key_variable: str | None = None, **settings: Any) -> Endpoint | None:
    """The language model of this name at this address; None where neither is given.

    Raises:
        ConfigError: an address without a model, or a model without an address.
    """
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise ConfigError(
            f"a language model has an address and a name: the {'address' if url is None else 'name'} is missing",
            hint="--chat-url http://127.0.0.1:11434/v1 --chat-model qwen3, or "
            "TASTEMAKER_CHAT_URL and TASTEMAKER_CHAT_MODEL in the environment",
        )
    return Endpoint.of(model=model, base_url=url, key_variable=key_variable or "", **settings)


def _library(name: str) -> Any:
    """A package of the extra, not looked into until a question is asked."""
    return optional(name, extra="agents", why="a language model at an endpoint")


def hidden(said: str, key: str) -> str:
    """What an endpoint said, short, on one line, and without the key or what looks like one."""
    for secret in (key, key[:12] if len(key) > 16 else ""):
        said = said.replace(secret, "[key]") if secret else said
    said = re.sub(r"\b(?:sk|key|pk|tok|gsk)[-_][\w*.-]{6,}", "[key]", said)
    said = re.sub(r"(?i)bearer\s+\S+", "Bearer [key]", said)
    said = " ".join(said.split())
    return said if len(said) <= SHOWN else said[: SHOWN - 1] + "…"
