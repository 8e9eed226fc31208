"""NVRTC is called in order, and what it lacks is an error that names the reason."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.merging import nvrtc
from core.merging.kernel_source import DEVICE_PRELUDE, KERNEL, MergeShape, TermShape, source_of
from core.merging.nvrtc import KernelUnavailable, compile_source, kernel_of

SHAPE = MergeShape(torch.bfloat16, torch.bfloat16, (TermShape(torch.bfloat16, True, "trim"),))
GPU = torch.device("cuda", 0)


class FakeNvrtc:
    """Compiles every source that names `merge_tensor` to a fixed binary."""

    binary, log = b"\x7fELF\0code", b"line 1: no such type"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.options: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            known = vars(FakeNvrtc).get(f"_{name}")
            return int(known(self, *arguments)) if known else 0

        return call

    def _nvrtcCreateProgram(self, program: Any, source: bytes, name: bytes, *_: Any) -> int:
        self.source, self.name = source, name
        return 0

    def _nvrtcCompileProgram(self, program: Any, count: int, options: Any) -> int:
        self.options = [options[number] for number in range(count)]
        return int(KERNEL.encode() not in self.source)

    def _nvrtcGetCUBINSize(self, program: Any, size: Any) -> int:
        size._obj.value = len(self.binary)
        return 0

    def _nvrtcGetCUBIN(self, program: Any, to: Any) -> int:
        ctypes.memmove(to, self.binary, len(self.binary))
        return 0

    def _nvrtcGetProgramLogSize(self, program: Any, size: Any) -> int:
        size._obj.value = len(self.log) + 1
        return 0

    def _nvrtcGetProgramLog(self, program: Any, to: Any) -> int:
        ctypes.memmove(to, self.log + b"\0", len(self.log) + 1)
        return 0


def test_source_is_compiled_without_fused_operations() -> None:
    library = FakeNvrtc()
    assert compile_source(library, source_of(SHAPE), "sm_90") == library.binary
    assert library.options[0] == b"--gpu-architecture=sm_90"
    assert {b"--fmad=false", b"--ftz=false", b"--prec-div=true"} < set(library.options)
    assert library.calls[-1] == "nvrtcDestroyProgram"


def test_a_refused_source_gives_the_log() -> None:
    library = FakeNvrtc()
    with pytest.raises(RuntimeError, match="no such type"):
        compile_source(library, "struct", "sm_90")
    assert library.calls[-1] == "nvrtcDestroyProgram"


def test_products_and_sums_are_intrinsics() -> None:
    """No operator that a compiler could fuse stands between floats."""
    terms = tuple(TermShape(torch.float32, True, drop) for drop in ("nothing", "trim", "rescaled", "random"))
    shape = MergeShape(torch.float32, torch.float32, terms, elects=True, divides=True, scales=True)
    for made in (shape, SHAPE._replace(interpolates=True)):
        body = source_of(made).split(f"{KERNEL}(")[1]
        floats = [line.split("=", 1)[1] for line in body.splitlines() if "=" in line and "float " in line]
        assert floats and not any(f" {sign} " in line for line in floats for sign in "+-*/")


def fake_gpu(patch: pytest.MonkeyPatch, library: FakeNvrtc, launched: list[Any]) -> None:
    def load(binary: bytes, names: list[str]) -> dict[str, Any]:
        assert binary == library.binary
        return {names[0]: lambda **options: launched.append(options)}

    patch.setattr(torch.version, "cuda", "13.0")
    patch.setattr(torch.cuda, "device", lambda device: nullcontext())
    patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=9, minor=0))
    patch.setattr("torch.cuda._utils._get_nvrtc_library", lambda: library)
    patch.setattr("torch.cuda._utils._cuda_load_module", load)
    patch.setattr(nvrtc, "kernel_of", kernel_of.__wrapped__)


@pytest.mark.parametrize(("size", "blocks"), [(1, 1), (1024, 1), (1025, 2), (2**31 - 1, 2**21)])
def test_a_kernel_has_a_thread_for_every_four_entries(size: int, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    library, launched = FakeNvrtc(), list[Any]()
    fake_gpu(monkeypatch, library, launched)
    kernel = nvrtc.kernel_of(SHAPE, GPU)
    arguments = [torch.zeros(1), torch.zeros(1), size, 1]
    kernel(arguments)
    assert library.source.decode() == DEVICE_PRELUDE + source_of(SHAPE)
    assert b"--gpu-architecture=sm_90" in library.options
    assert launched == [{"grid": (blocks, 1, 1), "block": (256, 1, 1), "args": arguments}]


def test_a_kernel_that_cannot_be_launched_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(binary: bytes, names: list[str]) -> dict[str, Any]:
        def refuse(**options: Any) -> None:
            raise RuntimeError("CUDA error: invalid argument")

        return {names[0]: refuse}

    fake_gpu(monkeypatch, FakeNvrtc(), [])
    monkeypatch.setattr("torch.cuda._utils._cuda_load_module", load)
    with pytest.raises(KernelUnavailable, match="invalid argument"):
        nvrtc.kernel_of(SHAPE, GPU)([torch.zeros(1), torch.zeros(1), 1, 1])


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError("Could not find any NVRTC library")

    fake_gpu(monkeypatch, FakeNvrtc(), [])
    monkeypatch.setattr("torch.cuda._utils._get_nvrtc_library", missing)
    with pytest.raises(KernelUnavailable, match="Could not find any NVRTC library"):
        nvrtc.kernel_of(SHAPE, GPU)


def test_other_devices_have_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelUnavailable):
        kernel_of(SHAPE, torch.device("cpu"))
    monkeypatch.setattr(torch.version, "cuda", None)  # a ROCm build
    with pytest.raises(KernelUnavailable):
        kernel_of(SHAPE, GPU)
