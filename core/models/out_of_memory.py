"""Work that did not fit into memory is done in smaller parts; what does not fit even so is an error with a hint.

torch says so in three ways: a GPU's OutOfMemoryError, and a RuntimeError or MemoryError of the processor's allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from core.errors import OutOfMemory

Item = TypeVar("Item")
Result = TypeVar("Result")
_CPU_WORDS = ("can't allocate memory", "not enough memory", "storage size calculation overflowed")
_HINT = "Shorter replies or samples, a smaller pool, or pool.memory: compact leave more room."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)


@contextmanager
def translate_oom(what: str) -> Iterator[None]:
    """Turn an allocator's error into one that says what did not fit.

    Raises:
        OutOfMemory: there was not enough memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Without its cause: the traceback would keep alive what filled the memory.
        reason = OutOfMemory(f"{what} did not fit into memory.", _HINT)
    else:
        return
    free_cached()
    raise reason


def free_cached() -> None:
    """Give back what torch keeps for later on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_device_bytes() -> int:
    """Memory that is free on the GPU, after torch has given back what it keeps."""
    free_cached()
    return int(torch.cuda.mem_get_info()[0])


def split_on_oom(items: Sequence[Item], work: Callable[[Sequence[Item]], Result], what: str) -> Iterator[Result]:
    """`work` on all items at once or, where that does not fit into memory, on each half of them, and so on.

    Args:
        items: at least one.
        work: is given some of the items, in their order.
        what: names the work in the error.

    Yields:
        what `work` returns, part by part.

    Raises:
        OutOfMemory: a single item does not fit.
    """
    try:
        with translate_oom(what):
            done = work(items)
    except OutOfMemory:
        if len(items) == 1:
            raise
    else:
        yield done
        return
    middle = len(items) // 2
    yield from split_on_oom(items[:middle], work, what)
    yield from split_on_oom(items[middle:], work, what)
