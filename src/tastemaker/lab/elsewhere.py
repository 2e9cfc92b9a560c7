"""Jobs done in a process of their own, which can be given up: when its time is out, or when it takes too much memory.

Why a process: a closed form that inverts a large matrix looks at no clock, and memory that is not there ends whatever
process asks for it. The parent watches resident memory (what is really used; limits on address space would count what
torch and its kin merely reserve) and the clock, and kills; the next job gets a new process. Jobs and outcomes are JSON
lines on the child's input and output; what a system prints goes to a log file.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tastemaker.data import load_split, save_split
from tastemaker.lab.attempt import Goal, Outcome
from tastemaker.lab.shop import Job, Shop, resolve, worth_keeping
from tastemaker.train import Bundle, Hardware
from tastemaker.types import Split, TastemakerError, quiet, replace_file

LOOK_SECONDS = 0.05  # between looks at the clock and at memory
START_SECONDS = 180.0  # a process that is not ready by then never will be
SPLIT, ORDERS, LOG = "inner", "orders.json", "worker.log"


class Elsewhere:
    """A workplace in another process. Nothing of the test part is in the folder it works from.

    systems: those whose code the process loads before it is ready, so that no job is charged for it
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        goal: Goal,
        *,
        seed: int,
        memory_mb: float,
        systems: Sequence[str] = (),
        hardware: Hardware | None = None,
    ) -> None:
        self.folder, self.memory_mb = folder, memory_mb
        self.process: subprocess.Popen[bytes] | None = None
        self.grace = 5.0  # until it is known how long a start takes
        self.ready = False
        self.rest = b""
        split.data.save(folder / "data")
        save_split(split, folder / "data", SPLIT)
        how = hardware or Hardware()
        orders = {
            "metric": goal.metric,
            "seed": seed,
            "systems": list(systems),
            "hardware": [how.device, how.precision, how.compile],
            "path": [place for place in sys.path if place],
        }
        with replace_file(folder / ORDERS) as fresh:
            fresh.write_text(json.dumps(orders), encoding="utf-8")
        self._start()

    def do(self, job: Job, most: float) -> Outcome:
        self._send(job)
        started = time.monotonic()
        said = self._line(most)
        gone = time.monotonic() - started
        if isinstance(said, dict):
            return Outcome.from_json(said)
        peak, code = self.peak, self._stop()
        if said == "memory":
            return Outcome(
                "failed", reason=f"needed more than {self.memory_mb:,.0f} MB of memory", seconds=gone, peak_mb=peak
            )
        if code is None:
            return Outcome("late", reason=f"was not done after {gone:.1f} s", seconds=gone, peak_mb=peak)
        why = "was killed, most likely for want of memory" if code == -signal.SIGKILL else f"died: {self._last_words()}"
        return Outcome("failed", reason=why, seconds=gone, peak_mb=peak)

    def has(self, place: Path) -> bool:
        return (place / "manifest.json").is_file()

    def bundle(self, place: Path) -> Bundle:
        return Bundle.load(place)

    def move(self, old: Path, new: Path) -> None:
        shutil.rmtree(new, ignore_errors=True)
        os.replace(old, new)

    @contextmanager
    def beside(self, jobs: Sequence[Job]) -> Iterator[None]:
        """A second process does the jobs meanwhile, if there is a second processor; nobody reads what it answers."""
        if not jobs or (os.cpu_count() or 1) < 2:
            yield
            return
        process = self._opened(subprocess.DEVNULL)
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"".join(json.dumps(job.to_json()).encode() + b"\n" for job in jobs))
                process.stdin.flush()
            yield
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]

    def close(self) -> None:
        self._stop()

    # -- the process

    def _send(self, job: Job) -> None:
        """Give a job to a process that is ready for it."""
        for attempt in (1, 2):
            if self.process is None:
                self._start()
            assert self.process is not None and self.process.stdin is not None
            began = time.monotonic()
            if not self.ready and self._line(START_SECONDS) is None:
                self._stop()
                raise TastemakerError(f"the process that trains did not start: {self._last_words()}")
            self.grace = self.grace if self.ready else max(2.0, time.monotonic() - began)
            self.ready = True
            try:
                self.process.stdin.write(json.dumps(job.to_json()).encode() + b"\n")
                self.process.stdin.flush()
                return
            except BrokenPipeError:  # it was ended between two jobs
                self._stop()
                if attempt == 2:
                    raise

    def _start(self) -> None:
        self.process = self._opened(subprocess.PIPE)
        self.ready, self.rest, self.peak = False, b"", 0.0

    def _opened(self, output: int) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(place for place in sys.path if place)
        with (self.folder / LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", "from tastemaker.lab.elsewhere import work; work()", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the parent, which then ends this one
            )

    def _stop(self) -> int | None:
        """End the process; its exit code if it had ended by itself."""
        process, self.process = self.process, None
        if process is None:
            return None
        code = process.poll()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return code

    def _line(self, most: float) -> dict[str, Any] | str | None:
        """The next line the process says; "memory" when it takes too much, None when it is late or dead."""
        assert self.process is not None and self.process.stdout is not None
        end, output = time.monotonic() + most, self.process.stdout.fileno()
        self.peak = 0.0
        while True:
            line, found, rest = self.rest.partition(b"\n")
            if found:
                self.rest = rest
                answer: dict[str, Any] = json.loads(line)
                return answer
            now = time.monotonic()
            if now >= end:
                return None
            there, _, _ = select.select([output], [], [], min(LOOK_SECONDS, end - now))
            if there:
                more = os.read(output, 1 << 16)
                if not more:
                    self.process.wait()
                    return None
                self.rest += more
            self.peak = max(self.peak, resident_mb(self.process.pid))
            if self.peak > self.memory_mb:
                return "memory"

    def _last_words(self) -> str:
        lines = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def resident_mb(pid: int) -> float:
    """Memory that a process really uses, in MB; 0 where it is gone or nobody can say."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0
    except OSError:
        if Path("/proc/self").exists():
            return 0.0
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return int(done.stdout) / 1024 if done.stdout.strip().isdigit() else 0.0


# -- the other side


def work() -> None:
    """What the process runs: jobs from its input, outcomes to its output, until the input ends."""
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a system prints goes to the log
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if one has to go, then this process
    orders = json.loads((folder / ORDERS).read_text(encoding="utf-8"))
    jobs = _jobs()
    device, precision, compiled = orders["hardware"]
    shop = Shop(
        load_split(folder / "data", SPLIT),
        Goal.of(orders["metric"]),
        seed=orders["seed"],
        hardware=Hardware(device, precision, compiled),
    )
    _load(orders["systems"])
    _answer(answers, {"ready": True})
    with quiet():
        while (said := jobs.get()) is not None:
            job = Job(**said)
            bundle, outcome = shop.do(job)
            if worth_keeping(job, bundle, outcome):
                assert job.keep is not None and bundle is not None
                bundle.save(job.keep)
            del bundle
            _answer(answers, outcome.to_json())


def _load(systems: Sequence[str]) -> None:
    """Import what jobs will need; torch has parts of its own that it loads at the first step of an optimiser."""
    for name in systems:
        resolve(name)
    if "torch" in sys.modules:
        import torch

        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.0).step()


def _jobs() -> queue.Queue[dict[str, Any] | None]:
    """Jobs as they come. When the parent is gone nobody waits for an answer: the process ends at once."""
    found: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            found.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    return found


def _answer(stream: Any, said: Mapping[str, Any]) -> None:
    stream.write(json.dumps(said) + "\n")
    stream.flush()
