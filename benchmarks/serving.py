"""Lists a second over HTTP, exact search of 100,000 items, beside what it is made of and beside a bare script.

python benchmarks/serving.py                      writes benchmarks/results/serving.json (about 6 minutes)
python benchmarks/serving.py --seconds 3          a quick look

Four servers, one after the other on the same machine, asked by wrk (a Debian package) with 1, 16 and 64 connections:
ours; the same application whose systems answer a constant list at once (what HTTP, JSON and the gate cost); and a bare
FastAPI script over FAISS, one query at a time, which is what people write first. Search alone is asked in this process,
in batches. The log writes to a disk, keys are off. Clients share the processors with the server.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import measure, page_table, write

ITEMS, DIM, USERS, EVENTS, K = 100_000, 64, 20_000, 20, 10
CONNECTIONS = (1, 16, 64)
SIDES = ("tastemaker", "http alone", "fastapi + faiss")
LUA = """
local n = 0
request = function()
  n = n + 1
  local body = '{"user": ' .. (n * 7919 % USERS) .. ', "k": K}'
  return wrk.format("POST", "/recommend", {["Content-Type"] = "application/json"}, body)
end
done = function(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('{"requests": %d, "us": %d, "p50": %d, "p99": %d, "bad": %d}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), bad))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=15, help="of each load")
    parser.add_argument("--serve", choices=SIDES, help="be one of the servers (used by the benchmark itself)")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.folder, asked.port)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    found: dict[str, Any] = {"items": ITEMS, "dim": DIM, "users": USERS, "k": K, "sides": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        found["search"] = search(folder)
        (folder / "ask.lua").write_text(LUA.replace("USERS", str(USERS)).replace("K}", f"{K}}}"))
        for side in SIDES:
            with running(side, folder) as (pid, port):
                load(folder, port, 16, 3)  # kernels, caches
                found["sides"][side] = {str(n): load(folder, port, n, asked.seconds) for n in CONNECTIONS}
                found["sides"][side]["peak_mb"] = peak_mb(pid)
        with running("tastemaker", folder, limit=64) as (_, port):
            found["half"] = half(folder, port, asked.seconds, found["sides"]["tastemaker"]["64"]["per_second"])
            found["overload"] = load(folder, port, 512, asked.seconds)
            found["alive"] = load(folder, port, 4, 2)["per_second"] > 0
    best = {
        side: max(run["per_second"] for run in runs.values() if isinstance(run, dict))
        for side, runs in found["sides"].items()
    }
    found["share_of_the_smaller"] = round(
        best["tastemaker"] / min(best["http alone"], found["search"]["per_second"]), 3
    )
    found["times_the_bare_script"] = round(best["tastemaker"] / best["fastapi + faiss"], 2)
    write("serving", found, tables(found))
    print(json.dumps({name: value for name, value in found.items() if name != "sides"}, indent=1))


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for side, runs in found["sides"].items():
        for n in CONNECTIONS:
            run = runs[str(n)]
            rows.append(
                {
                    "server": side,
                    "connections": n,
                    "lists a second": run["per_second"],
                    "p50 ms": run["p50_ms"],
                    "p99 ms": run["p99_ms"],
                }
            )
    search, half_, over = found["search"], found["half"], found["overload"]
    note = (
        f"Search alone, in batches of {search['batch']}: {search['per_second']:,.0f} lists a second. Ours reaches "
        f"{found['share_of_the_smaller']:.0%} of the smaller of search alone and HTTP alone, and "
        f"{found['times_the_bare_script']:g} times the bare script. At half its load "
        f"({half_['per_second']:,.0f} a second): p50 {half_['p50_ms']} ms, p99 {half_['p99_ms']} ms. "
        f"With 512 connections and room for 64 questions: "
        f"{over['answered']:,.0f} answered and {over['refused']:,.0f} refused a second, and it answers afterwards."
    )
    return [page_table(f"Lists of {K} from {ITEMS:,} items in {DIM} dimensions, over HTTP", rows, note)]


# -- what is served


def prepare(folder: Path) -> None:
    """A factorisation of made-up choices: what counts here is its size."""
    import numpy as np
    import polars as pl

    from tastemaker.train import fit
    from tastemaker.types import Dataset

    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS, dtype=np.int32), EVENTS)
    items = (rng.random(len(users)) ** 2 * ITEMS).astype(np.int32)
    pairs = pl.DataFrame({"user": users, "item": items}).unique(maintain_order=True)
    data = Dataset("made up", pl.DataFrame({"user": range(USERS)}), pl.DataFrame({"item": range(ITEMS)}), pairs)
    fit("ials", data, {"dim": DIM, "sweeps": 2}).save(folder / "bundle")


def search(folder: Path) -> dict[str, Any]:
    """Lists a second of the search, requests ready made, in batches as the queue makes them."""
    import numpy as np

    from tastemaker.serve.entry import opened
    from tastemaker.serve.questions import Question

    entry = opened(folder / "bundle")
    rng = np.random.default_rng(1)
    best: dict[str, Any] = {"per_second": 0.0}
    for batch in (64, 128, 512):
        requests = entry.requests([Question(user=int(u)) for u in rng.integers(USERS, size=batch)])
        took = measure(lambda requests=requests: entry.bundle.retriever.retrieve(requests, K + 1), 7).median
        if batch / took > best["per_second"]:
            best = {"batch": batch, "per_second": round(batch / took, 1)}
    return best


def serve(side: str, folder: Path, port: int) -> None:
    """Be one of the servers."""
    import uvicorn

    app = bare(folder) if side == "fastapi + faiss" else ours(folder, constant=side == "http alone")
    uvicorn.run(app, port=port, log_level="error", access_log=False)


def ours(folder: Path, *, constant: bool) -> Any:
    from tastemaker.serve.app import create_app
    from tastemaker.serve.questions import Answer
    from tastemaker.serve.runtime import Runtime
    from tastemaker.serve.settings import Settings

    capacity = int(os.environ.get("CAPACITY", "4096"))
    runtime = Runtime(Settings.read(log_url=f"sqlite:///{folder / 'log.db'}", capacity=capacity, web=False, mcp=False))
    entry = runtime.open(folder / "bundle")
    if constant:
        items = entry.ids[:K]

        async def ask(entry: Any, question: Any) -> Any:
            return Answer(items, [1.0] * K)

        runtime.ask = ask  # type: ignore[method-assign]
    return create_app(runtime)


def bare(folder: Path) -> Any:
    """What people write first: a vector a user, an index, a route."""
    import faiss
    import numpy as np
    from fastapi import FastAPI
    from pydantic import BaseModel

    from tastemaker.train import Bundle
    from tastemaker.types import Requests

    bundle = Bundle.load(folder / "bundle")
    vectors = np.ascontiguousarray(bundle.system.items(), dtype=np.float32)
    assert bundle.histories is not None
    asked = Requests.of_users(np.arange(USERS), history=bundle.histories)
    users = np.ascontiguousarray(bundle.system.queries(asked), dtype=np.float32)
    seen = [set(bundle.histories[u]["item"].tolist()) for u in range(USERS)]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    class Body(BaseModel):
        user: int
        k: int = 10

    app = FastAPI()

    def recommend(body: Any) -> dict[str, Any]:
        known = seen[body.user]
        scores, items = index.search(users[body.user : body.user + 1], body.k + len(known))
        pairs = [(i, s) for i, s in zip(items[0].tolist(), scores[0].tolist(), strict=True) if i not in known]
        return {"items": [{"item": i, "score": s} for i, s in pairs[: body.k]]}

    recommend.__annotations__["body"] = Body  # the class is of this function
    app.post("/recommend")(recommend)
    return app


@contextmanager
def running(side: str, folder: Path, limit: int | None = None) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its number, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **({} if limit is None else {"CAPACITY": str(limit)})}
    command = [sys.executable, __file__, "--serve", side, "--folder", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    try:
        for _ in range(600):
            try:
                body = json.dumps({"user": 1, "k": K}).encode()
                to = f"http://127.0.0.1:{port}/recommend"
                urllib.request.urlopen(
                    urllib.request.Request(to, body, {"Content-Type": "application/json"}), timeout=5
                )
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"the server {side!r} ended by itself") from None
                time.sleep(0.2)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(20)


# -- loads


def load(folder: Path, port: int, connections: int, seconds: int) -> dict[str, Any]:
    """Ask with so many connections at once, each again as soon as it is answered."""
    command = [
        "wrk",
        "-t",
        "1",
        "-c",
        str(connections),
        "-d",
        f"{seconds}s",
        "--timeout",
        "20s",
        "-s",
        str(folder / "ask.lua"),
    ]
    out = subprocess.run([*command, f"http://127.0.0.1:{port}"], check=True, capture_output=True, text=True).stdout
    told = json.loads(re.findall(r"^\{.*\}$", out, re.MULTILINE)[-1])
    rate, bad = told["requests"] / told["us"] * 1e6, told["bad"] / told["us"] * 1e6
    return {
        "per_second": round(rate - bad, 1),
        "answered": round(rate - bad, 1),
        "refused": round(bad, 1),
        "p50_ms": round(told["p50"] / 1000, 2),
        "p99_ms": round(told["p99"] / 1000, 2),
    }


def half(folder: Path, port: int, seconds: int, most: float) -> dict[str, Any]:
    """Half of what it can: 32 connections that pause at random (or they would come in one burst again and again)."""
    text = (folder / "ask.lua").read_text()
    wanted = 32 / (most / 2)  # seconds from one request of a connection to its next
    pause = wanted * 0.7
    try:
        for length in (3, 3, seconds):
            random = f"return math.floor(-{1000 * pause} * math.log(1 - math.random()))"
            (folder / "ask.lua").write_text(f"{text}\ndelay = function() {random} end\n")
            found = load(folder, port, 32, length)
            pause = max(0.001, pause + wanted - 32 / found["per_second"])
        return found
    finally:
        (folder / "ask.lua").write_text(text)


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024, 1)


if __name__ == "__main__":
    main()
