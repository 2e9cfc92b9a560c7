"""Virtual environments of the libraries we are measured beside, one each, since their requirements clash.

python benchmarks/peers.py             list them
python benchmarks/peers.py implicit    make .venv-peers/implicit from benchmarks/peers/implicit.txt
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent / ".venv-peers"
REQUIREMENTS = HERE / "peers"


def peer(name: str, *, timeout: float = 600) -> Path:
    """The Python of the peer's environment, which is made now where it is missing or its requirements changed."""
    wanted = REQUIREMENTS / f"{name}.txt"
    if not wanted.is_file():
        raise SystemExit(f"no peer {name!r}; there are {', '.join(peers())}")
    folder = ROOT / name
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    fresh = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == fresh):
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(wanted)], check=True, timeout=timeout)
        stamp.write_text(fresh)
    return python


def peers() -> list[str]:
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


if __name__ == "__main__":
    for line in map(str, map(peer, sys.argv[1:])) if sys.argv[1:] else peers():
        print(line)
