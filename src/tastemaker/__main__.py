"""`python -m tastemaker`, as under `torchrun -m tastemaker`."""

from tastemaker.cli import main

main()
