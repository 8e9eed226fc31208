"""Checks the header of a safetensors file, which is JSON from the Hub: types and lengths of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.errors import ModelError

if TYPE_CHECKING:
    from huggingface_hub import SafetensorsFileMetadata

_MAX_DIMENSIONS = 16
_MAX_SIZE = 2**62
_MALFORMED = (TypeError, ValueError, KeyError, AttributeError, RecursionError, MemoryError)
"""What parsing raises for values of other types or lengths."""


def checked_header(
    read: Callable[[], SafetensorsFileMetadata], name: str, source: str, hint: str
) -> SafetensorsFileMetadata:
    """The header that `read` returns.

    Args:
        read: reads and parses the header.
        name: of the file.
        source: the model or folder, for messages.
        hint: what to do about a damaged file.

    Raises:
        ModelError: the header is malformed (code `damaged-safetensors`).
        OSError: from `read`.
    """
    from huggingface_hub.errors import SafetensorsParsingError

    try:
        header = read()
        wrong = next((tensor for tensor, info in header.tensors.items() if not _is_tensor(info)), None)
    except (SafetensorsParsingError, *_MALFORMED) as error:
        raise _damaged(name, source, hint) from error
    if wrong is not None:
        raise _damaged(name, source, hint)
    return header


def _is_tensor(info: Any) -> bool:
    """Whether dtype, shape and place of a tensor have the right types, and the place is in order."""
    shape, offsets = info.shape, info.data_offsets
    if not isinstance(info.dtype, str) or not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        return False
    return len(offsets) == 2 and all(map(_is_size, (*shape, *offsets))) and offsets[0] <= offsets[1]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_SIZE


def _damaged(name: str, source: str, hint: str) -> ModelError:
    return ModelError(f"{name} of {source} is not a readable safetensors file.", hint, code="damaged-safetensors")
