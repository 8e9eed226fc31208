"""Splits work that does not fit into memory, and raises an error with a hint when the smallest part does not fit.

torch reports a lack of memory in three ways: OutOfMemoryError on a GPU, and RuntimeError or MemoryError on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from core.errors import OutOfMemory

Item = TypeVar("Item")
Result = TypeVar("Result")
_CPU_MESSAGES = ("can't allocate memory", "not enough memory", "storage size calculation overflowed")
_HINT = "Use shorter replies or samples, a smaller pool, or pool.memory: compact."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` reports that memory could not be allocated."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_MESSAGES)


@contextmanager
def translate_oom(what: str) -> Iterator[None]:
    """Turn an allocator's error into `OutOfMemory`, whose message names `what` did not fit.

    Raises:
        OutOfMemory: there was not enough memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Without a cause: the traceback would keep the tensors that filled the memory alive.
        reason = OutOfMemory(f"{what} did not fit into memory.", _HINT, code="out-of-memory")
    else:
        return
    free_cached()
    raise reason


def free_cached() -> None:
    """Free the GPU memory that torch has cached."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_device_bytes() -> int:
    """GPU memory in bytes that this process can still use, after the memory that torch has cached is freed.

    Memory that torch keeps because a part of its block is in use counts too: the next tensors can take the rest.
    """
    free_cached()
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + max(0, kept)


def split_on_oom(items: Sequence[Item], work: Callable[[Sequence[Item]], Result], what: str) -> Iterator[Result]:
    """Call `work` on all items, or, if they do not fit into memory, on each half, recursively.

    Args:
        items: at least one.
        work: called with some of the items, in order.
        what: name of the work for the error message.

    Yields:
        The results of `work`, part by part.

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
