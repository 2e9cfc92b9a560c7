"""The conformance suite, for systems of ours and of others."""

from tastemaker.testing.blocks import blocks, share_of_own_block
from tastemaker.testing.conformance import CHECKS, check, check_fresh_process, run_check
from tastemaker.testing.subject import Subject, subject
from tastemaker.testing.trained import Watched, watch

__all__ = [
    "CHECKS",
    "Subject",
    "Watched",
    "blocks",
    "check",
    "check_fresh_process",
    "run_check",
    "share_of_own_block",
    "subject",
    "watch",
]
