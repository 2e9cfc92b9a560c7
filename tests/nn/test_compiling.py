"""What is left alone is a break in a compiled graph, and nobody pays for the compiler who does not compile."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor

from tastemaker.nn import compiling
from tastemaker.nn.compiling import LeftAlone, compiled


def test_what_is_left_alone_is_run_as_it_is() -> None:
    seen = []

    def loop(x: Tensor) -> Tensor:
        seen.append(torch.compiler.is_compiling())
        return x * 2 if float(x.sum()) > 0 else x

    left = LeftAlone(loop)
    graphs = []

    def backend(graph: torch.fx.GraphModule, example: object) -> object:
        graphs.append(graph)
        return graph.forward

    compiled(lambda x: x)
    quick = torch.compile(lambda x: left(x + 1) + 3, backend=backend)
    assert quick(torch.ones(3)).tolist() == [7.0, 7.0, 7.0] and quick(-3 * torch.ones(3)).tolist() == [1.0, 1.0, 1.0]
    assert len(graphs) == 2 and seen == [False, False], "one graph before it, one after, and it is in neither"
    assert left not in compiling._LEFT


def test_systems_do_not_load_the_compiler() -> None:
    """It takes seconds, and a process that answers, or lists the systems, has no use for it."""
    code = (
        "import sys; from tastemaker.contracts import find, names; found = [find(name).cls for name in names()];"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
