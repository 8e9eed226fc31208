"""Free GPU memory counts what torch keeps and does not use; a simulated GPU of 80 GB."""

from __future__ import annotations

import pytest
import torch

from core.models.out_of_memory import free_device_bytes

GB = 10**9


def test_reserved_memory_that_no_tensor_uses_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 58 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 50 * GB)
    assert free_device_bytes() == 28 * GB
    assert emptied
