"""Compiles CUDA source with NVRTC, the run-time compiler that CUDA builds of torch load; no toolkit is needed.

`torch.cuda._compile_kernel` does the same, but needs the include folder of an installed CUDA toolkit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from core.merging.kernel_source import DEVICE_PRELUDE, KERNEL, PER_THREAD, MergeShape, source_of

Argument = Tensor | int | float
Kernel = Callable[[Sequence[Argument]], None]
"""Runs a kernel with its arguments: tensors as pointers, int as 32-bit numbers, float as double."""

SIZE_AT = 2
"""Index of the number of entries in a kernel's arguments."""
_THREADS = 256
_OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true")


class KernelUnavailable(Exception):
    """A kernel cannot be compiled, loaded or launched; the message gives the reason."""


@cache
def kernel_of(shape: MergeShape, device: torch.device) -> Kernel:
    """The compiled kernel of a shape.

    Raises:
        KernelUnavailable: the device is not an NVIDIA GPU, NVRTC is missing, or it refuses the source.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        raise KernelUnavailable(f"NVRTC compiles for NVIDIA GPUs, not for {device.type}.")
    try:
        from torch.cuda._utils import _cuda_load_module, _get_nvrtc_library

        with torch.cuda.device(device):
            properties = torch.cuda.get_device_properties(device)
            architecture = f"sm_{properties.major}{properties.minor}"
            binary = compile_source(_get_nvrtc_library(), DEVICE_PRELUDE + source_of(shape), architecture)
            loaded: Any = _cuda_load_module(binary, [KERNEL])
    except (RuntimeError, OSError, ImportError, AttributeError) as error:
        raise KernelUnavailable(f"{type(error).__name__}: {error}") from error
    return _launcher(loaded[KERNEL], device)


@contextmanager
def _named_failures() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise KernelUnavailable(f"The kernel cannot be launched: {error}") from error


def _launcher(kernel: Any, device: torch.device) -> Kernel:
    def launch(arguments: Sequence[Argument]) -> None:
        size = arguments[SIZE_AT]
        blocks = -(-int(size) // (_THREADS * PER_THREAD))
        with torch.cuda.device(device), _named_failures():
            kernel(grid=(blocks, 1, 1), block=(_THREADS, 1, 1), args=list(arguments))

    return launch


def compile_source(library: Any, source: str, architecture: str) -> bytes:
    """The device code of a source.

    Args:
        library: NVRTC, loaded by ctypes.
        source: CUDA source.
        architecture: of the GPU, such as `sm_90`.

    Raises:
        RuntimeError: NVRTC refuses the source.
    """
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"--gpu-architecture={architecture}", *_OPTIONS]
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    _require(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), f"{KERNEL}.cu".encode(), 0, None, None))
    try:
        if library.nvrtcCompileProgram(program, len(options), texts):
            raise RuntimeError(f"NVRTC refuses the source: {_log_of(library, program)}")
        _require(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        binary = ctypes.create_string_buffer(size.value)
        _require(library.nvrtcGetCUBIN(program, binary))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    return binary.raw


def _require(code: int) -> None:
    if code:
        raise RuntimeError(f"NVRTC returned error {code}.")


def _log_of(library: Any, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _require(library.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    _require(library.nvrtcGetProgramLog(program, log))
    return log.value.decode(errors="replace")
