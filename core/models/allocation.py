"""Sets the C library's memory allocator to keep freed memory for the next pass.

Each pass over the training pairs allocates and frees the same large tensors. By default the C library returns their
pages to the operating system, which has to allocate and clear new ones every time. With kept pages a pass is faster.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST_KEPT_BYTES = 1 << 30
"""Tensors above this size (whole embeddings of large models) are still returned to the system when freed."""
_TRIM_BYTES = (1 << 31) - 1
"""Free memory at the end of the heap above this size is returned to the system; the largest value that is accepted."""


def keep_freed_memory() -> bool:
    """Make this process keep the memory that it frees; its memory use may then stay at the peak.

    Call it after the models are loaded, so that the memory of loading itself is returned to the system.

    Returns:
        False where the C library has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _TRIM_BYTES))
