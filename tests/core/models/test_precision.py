"""The number format is what this machine multiplies fast, not what it says it supports."""

from __future__ import annotations

import pytest
import torch

from core.models import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("bfloat16_s", "dtype"),
    [(0.5, torch.bfloat16), (1.2, torch.bfloat16), (1.3, torch.float32), (40.0, torch.float32)],
)
def test_bfloat16_unless_it_is_clearly_slower(
    monkeypatch: pytest.MonkeyPatch, bfloat16_s: float, dtype: torch.dtype
) -> None:
    seconds = {torch.bfloat16: bfloat16_s, torch.float32: 1.0}
    monkeypatch.setattr(precision, "_matmul_s", seconds.__getitem__)
    assert precision.fast_dtype(CPU) is dtype


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_is_asked(monkeypatch: pytest.MonkeyPatch, supported: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert precision.fast_dtype(torch.device("cuda")) is dtype


def test_this_machine_has_one_of_both() -> None:
    assert precision.fast_dtype(CPU) in (torch.bfloat16, torch.float32)
