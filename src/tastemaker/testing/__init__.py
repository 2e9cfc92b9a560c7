"""The conformance suite every system must pass."""

from tastemaker.testing.conformance import CHECKS, Subject, check, check_fresh_process, run_check, subject

__all__ = ["CHECKS", "Subject", "check", "check_fresh_process", "run_check", "subject"]
