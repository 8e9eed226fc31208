"""Kernels of merged tensors without a GPU: their arithmetic in torch, and their own source compiled by g++."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from core.merging.kernel_source import KERNEL, PER_THREAD, MergeShape, TermShape, source_of
from core.merging.nvrtc import SIZE_AT, Argument, Kernel

HAS_COMPILER = shutil.which("g++") is not None
_HOST_PRELUDE = """
#include <cstring>
#define __device__ static
#define __global__
#define __forceinline__ inline
struct Place { unsigned x; };
static Place blockIdx, threadIdx, blockDim = {1};
extern "C" void place(unsigned number) { blockIdx.x = number; }
static float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static float half_to_float(unsigned short bits) { _Float16 half; std::memcpy(&half, &bits, 2); return half; }
static unsigned short float_to_half(float value) {
    _Float16 half = value; unsigned short bits; std::memcpy(&bits, &half, 2); return bits;
}
"""


def reference_kernel(shape: MergeShape, device: torch.device) -> Kernel:
    """The kernel's arithmetic in float32, entry by entry, by torch's operators on whole tensors."""
    return lambda arguments: _run_reference(shape, arguments)


def _run_reference(shape: MergeShape, arguments: Sequence[Argument]) -> None:
    out, base, size, aligned, *rest = arguments
    assert isinstance(out, Tensor) and isinstance(base, Tensor) and out.numel() == size and aligned in (0, 1)
    assert (out.dtype, base.dtype) == (shape.out, shape.base)
    bases, left = base.reshape(-1).float(), iter(rest)
    read = [(_difference(term, bases, left)) for term in shape.terms]
    divisor, factor = (float32(number) for number in left)
    if shape.interpolates:
        [(delta, weight)] = read
        merged = bases * factor + (bases + delta) * weight
    else:
        merged = _sum(shape, [delta * weight for delta, weight in read], [weight for _, weight in read], divisor)
        merged = (merged * factor if shape.scales else merged) + bases
    out.view(-1).copy_(merged.to(shape.out))


def float32(number: object) -> Tensor:
    assert type(number) is float
    return torch.tensor(number, dtype=torch.float32)


def _difference(term: TermShape, bases: Tensor, left: object) -> tuple[Tensor, Tensor]:
    """The kept entries of a task vector, and its weight."""
    values, weight = next(left), float32(next(left))  # type: ignore[call-overload]
    assert values.dtype == term.values
    delta, places = values.float() - bases if term.own else values.float(), torch.arange(bases.numel())
    if term.drop in ("trim", "rescaled"):
        bits, end = next(left), next(left)  # type: ignore[call-overload]
        assert (bits.dtype, end.dtype) == (torch.int32, torch.int64)
        least = bits.view(torch.float32)  # the magnitude with these bits
        above = torch.nextafter(least, torch.tensor(torch.inf))
        delta = torch.where(delta.abs() >= torch.where(places < end, least, above), delta, 0.0)
    if term.drop == "rescaled":
        factor = next(left)  # type: ignore[call-overload]
        assert factor.dtype == torch.float64
        delta = delta * factor.float()
    if term.drop == "random":
        keys, last_kept = next(left), next(left)  # type: ignore[call-overload]
        assert keys.dtype == torch.int32
        delta = delta * (_numbers(keys, places) <= last_kept).float()
    return delta, weight


def _numbers(keys: Tensor, places: Tensor) -> Tensor:
    """The random numbers of DARE's masks, version 2, in 64-bit arithmetic."""
    low, words = 2**32 - 1, places // 2
    word, key = words % 2**18, keys.long()[words // 2**18] & low
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & low
    word = ((word ^ (word >> 15)) * 0x735A2D97) & low
    word = ((word ^ (word >> 15) ^ key[:, 0]) * key[:, 1]) & low
    word = ((word ^ (word >> 16)) * 0x9E3779B9) & low
    half = torch.where(places % 2 == 1, word >> 16, word & 0xFFFF)
    return torch.where(half >= 2**15, half - 2**16, half)


def _sum(shape: MergeShape, weighted: list[Tensor], weights: list[Tensor], divisor: Tensor) -> Tensor:
    total = weighted[0]
    for values in weighted[1:]:
        total = total + values
    if not shape.elects:
        return total / divisor if shape.divides else total
    sign = torch.where(total >= 0, 1.0, -1.0)
    agreed, share = torch.zeros_like(total), torch.zeros_like(total)
    for values, weight in zip(weighted, weights, strict=True):
        agreed = agreed + torch.where(values * sign > 0, values * sign, 0.0)
        share = share + torch.where(values * sign > 0, weight, 0.0)
    merged = agreed * sign
    return merged / torch.where(share == 0, 1.0, share) if shape.divides else merged


def host_kernel(shape: MergeShape, device: torch.device) -> Kernel:
    """The kernel's own source, compiled by g++ without fused operations, which runs one group after another."""
    library = _compiled(source_of(shape))
    return lambda arguments: _run_on_host(library, arguments)


def _run_on_host(library: ctypes.CDLL, arguments: Sequence[Argument]) -> None:
    passed = [_as_c(argument) for argument in arguments]
    kernel = getattr(library, KERNEL)
    for number in range(-(-int(arguments[SIZE_AT]) // PER_THREAD)):
        library.place(number)
        kernel(*passed)


def _as_c(argument: Argument) -> object:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_double(argument)


@cache
def _compiled(source: str) -> ctypes.CDLL:
    folder = Path(tempfile.gettempdir()) / f"safemerge-host-kernels-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    text = _HOST_PRELUDE + source
    built = folder / f"{sha256(text.encode()).hexdigest()[:24]}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            code, made = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
            code.write_text(text)
            options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC"]
            subprocess.run(["g++", *options, "-o", made, code], check=True, capture_output=True)
            made.rename(built)
    return ctypes.CDLL(str(built))
