"""The event that ends a run whose job raised an exception: what was missing, a mistake to mend, or a defect.

Torch is not imported here, so its errors and those of the system are recognized by their text.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator

from core.contracts.events import Failed
from core.durable import DISK_FULL
from core.errors import SafeMergeError

_NO_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
    "can't start new thread", "failed to map segment from shared object",
)  # fmt: skip
"""How torch, Python and the system say that memory is missing, in lower case."""
_NO_SPACE = ("no space left on device", "disk quota exceeded")
_MEMORY_HINT = "Close other programs, use a smaller pool or pool.memory: compact, and resume the run."
_SPACE_HINT = "Free disk space and resume the run."
_LONGEST = 300


def failure_of(error: BaseException) -> Failed:
    """The event for an exception: a lack of memory or disk space is called that, also where another error hides it."""
    if isinstance(error, SafeMergeError):
        if "memory" not in error.code and lacks_memory(error):
            return Failed(message=f"There was not enough memory: {error.message}", hint=_MEMORY_HINT)
        return Failed(message=error.message, hint=error.hint)
    if _lacks_space(error):
        name = getattr(error, "filename", None)
        return Failed(message=f"There is no space left{f' to write {name}' if name else ''}.", hint=_SPACE_HINT)
    if lacks_memory(error):
        reason = str(error)[:_LONGEST] or type(error).__name__
        return Failed(message=f"There was not enough memory: {reason}", hint=_MEMORY_HINT)
    return Failed(
        message=f"Something went wrong inside the run: {type(error).__name__}: {error}",
        hint="This is a defect of SafeMerge, not a mistake of yours: report it with the traceback.",
        traceback="".join(traceback.format_exception(error)),
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, says that the system or torch has no memory left."""
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or (isinstance(one, RuntimeError | ImportError) and _says(one, _NO_MEMORY))
        for one in _chain(error)
    )


def _lacks_space(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, says that the disk is full; libraries have their own types."""
    return any(
        one.errno in DISK_FULL if isinstance(one, OSError) and one.errno else _says(one, _NO_SPACE)
        for one in _chain(error)
    )


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return any(word in str(error).lower() for word in words)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, what caused it, and so on."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
