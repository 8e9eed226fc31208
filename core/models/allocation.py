"""What the system's memory allocator does with the memory of a pass that is over.

A pass over the training pairs makes and drops the same large tensors again and again. By default the C library gives
them back to the system each time, which then hands out pages anew and clears them. Kept, the same pages serve the next
pass.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST_KEPT = 1 << 30
"""Bytes: larger tensors (whole embeddings of large models) are still given back when they are dropped."""
_MOST_KEPT = (1 << 31) - 1
"""Bytes of free memory in one piece, beyond which it is given back: the most that the setting takes."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; its memory may stay at its peak from here on.

    To be called once the models are loaded, as what loading needs beside them should go back.

    Returns:
        False where the C library has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
