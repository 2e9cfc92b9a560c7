"""The command line. Nothing heavy is imported before a command runs, so help answers at once."""

from __future__ import annotations

import sys

EXIT_CODES = """\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unusable data, 4 an optional package is missing,
5 unusable bundle, 6 over the memory budget, 7 the system cannot do it, 8 training diverged,
9 a server or its store said no, 10 what is served stays as it is, 130 stopped by Ctrl-C."""


def main() -> None:
    """Entry point of the command `tastemaker`."""
    from tastemaker.cli.app import app

    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        sys.exit(_stopped())
    except Exception as error:
        sys.exit(_explain(error))
    sys.exit(_stopped() if code == 130 else code if isinstance(code, int) else 0)


def _stopped() -> int:
    print("stopped; nothing is left half-written", file=sys.stderr)
    return 130


def _explain(error: Exception) -> int:
    """Print an error as its kind deserves and return the exit code; a fault of ours keeps its traceback."""
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # wrong usage, found by the parser
        print(f"error: {error.format_message()}", file=sys.stderr)
        return int(error.exit_code)
    from tastemaker.types.errors import TastemakerError

    if isinstance(error, TastemakerError):
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return 0
    import traceback

    traceback.print_exc()
    print("error: this is a fault in tastemaker, not in what you asked; please report the lines above", file=sys.stderr)
    return 1
