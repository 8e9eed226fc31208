"""Looks for values that are not finite (NaN, infinity) in small local weights; larger ones are checked when loaded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.contracts.events import CheckRow
from core.errors import ModelError
from core.models.files import find_weights, open_files
from core.models.metadata import ModelMetadata
from core.preflight.check_rows import error_row
from core.settings import Settings

MOST_BYTES = 256 * 1024 * 1024
"""Larger weights would take more than a second to read."""

_EXPONENTS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""Unsigned type and exponent bits of each number format: a value with all of them set is not finite."""


def finite_rows(model: ModelMetadata, settings: Settings) -> Iterator[CheckRow]:
    """An error row if a tensor of a small local model holds values that are not finite."""
    if model.ref.kind != "folder" or model.pickled_bytes or model.size_bytes > MOST_BYTES:
        return
    try:
        if (name := _first_damaged(model, settings)) is not None:
            detail = f"{name} holds values that are not finite"
            hint = "The checkpoint is damaged: download it again, or choose another revision."
            yield error_row(model.ref, "weights", detail, hint)
    except ModelError:  # the row on the weights reports it
        return


def _first_damaged(model: ModelMetadata, settings: Settings) -> str | None:
    """Name of the first tensor with such a value, as saved; None if there is none."""
    files = open_files(model.ref.base, settings)
    for file in find_weights(files, "model", str(model.ref)).names:
        header = files.header(file)
        start = 8 + int.from_bytes(files.read(file, 0, 8), "little")
        for name, tensor in header.tensors.items():
            if tensor.dtype not in _EXPONENTS:
                continue
            kind, exponent = _EXPONENTS[tensor.dtype]
            first, end = tensor.data_offsets
            values = np.frombuffer(files.read(file, start + first, end - first), dtype=kind)
            if bool(((values & values.dtype.type(exponent)) == exponent).any()):
                return str(name)
    return None
