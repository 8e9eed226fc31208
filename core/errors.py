"""The exceptions that are shown to a person.

A `SafeMergeError` is a mistake that can be explained: its message says what is wrong, its hint what to do next.
Every other exception is a defect of SafeMerge and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple


class SafeMergeError(Exception):
    """A displayable error.

    Args:
        message: what is wrong, one sentence, with the offending value.
        hint: what the person can do next.
        code: stable short name of the mistake, such as `no-safetensors`, for tests and scripts; messages may change.
    """

    def __init__(self, message: str, hint: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class SpecProblem(NamedTuple):
    """One mistake in a spec: the key it stands at (`search.steps`), its kind, and a sentence."""

    place: str
    kind: str
    message: str


class SpecError(SafeMergeError):
    """The run specification cannot be accepted (exit code 2).

    Args:
        problems: every mistake that validation found; empty where the spec could not be read at all.
    """

    def __init__(self, message: str, hint: str = "", *, code: str = "", problems: Sequence[SpecProblem] = ()) -> None:
        super().__init__(message, hint, code=code)
        self.problems = tuple(problems)


class ModelError(SafeMergeError):
    """A model reference cannot be resolved, is not mergeable or may not be loaded."""


class DataError(SafeMergeError):
    """Prompts, samples or generated text are not usable."""


class GuardError(SafeMergeError):
    """A guard is unknown or gave no usable verdict."""


class MergeError(SafeMergeError):
    """A recipe cannot be applied to the pool."""


class YamlError(SafeMergeError):
    """A YAML text is malformed, uses more than plain data, or exceeds a limit; the caller names the file."""


class OutOfMemory(MergeError):
    """A step did not fit into memory, even split into its smallest parts; a search counts a failed candidate."""


class RunError(SafeMergeError):
    """A run folder or its worker is not in the state that an operation needs."""


class RunCancelled(Exception):
    """Raised inside a job when a stop was requested; the job boundary turns it into `Cancelled`."""


class UnsupportedPlatform(SafeMergeError):
    """This operating system lacks what runs need."""


def require_posix(platform: str = sys.platform) -> None:
    """Raise `UnsupportedPlatform` on Windows.

    A worker inherits the lock of the machine through an open file, and logs are locked with `flock`; Windows has
    neither.
    """
    if platform == "win32":
        raise UnsupportedPlatform(
            "SafeMerge runs on Linux and macOS.",
            "On Windows, install WSL (wsl --install) and run it there.",
            code="windows",
        )
