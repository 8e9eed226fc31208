"""CUDA source of the kernels that merge a whole tensor: the operations of `core.merging.arithmetic`, in the same order.

Every product, sum and quotient is a CUDA intrinsic that rounds to float32 and that the compiler never fuses, as on a
processor. Each kernel is generated for one `MergeShape`. `DEVICE_PRELUDE` holds the two instructions that only a GPU
has; the tests compile the rest of the source for a processor.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from core.merging.counter_masks import BLOCK_WORDS, MULTIPLIER, TABLE_ROUNDS, TABLE_SHIFT

KERNEL = "merge_tensor"
"""Name of the generated function."""
PER_THREAD = 4
"""Entries that one thread merges; aligned tensors are read and written that many at a time."""
NAMES = {torch.float32: "float", torch.bfloat16: "BF16", torch.float16: "F16"}
"""The source's type of each supported format."""

DEVICE_PRELUDE = """
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ __forceinline__ unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
"""

_FORMATS = f"""
typedef long long Position;
struct BF16 {{ unsigned short bits; }};
struct F16 {{ unsigned short bits; }};
template <typename T> struct alignas({PER_THREAD} * sizeof(T)) Group {{ T at[{PER_THREAD}]; }};

__device__ __forceinline__ float widen(float value) {{ return value; }}
__device__ __forceinline__ float widen(BF16 value) {{ return __uint_as_float((unsigned)value.bits << 16); }}
__device__ __forceinline__ float widen(F16 value) {{ return half_to_float(value.bits); }}
__device__ __forceinline__ void narrow(float value, float& to) {{ to = value; }}
__device__ __forceinline__ void narrow(float value, F16& to) {{ to.bits = float_to_half(value); }}
__device__ __forceinline__ void narrow(float value, BF16& to) {{  // to the nearest, ties to even
    const unsigned bits = __float_as_uint(value);
    to.bits = value != value ? 0x7FC0 : (unsigned short)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}}
template <typename T> __device__ __forceinline__ void load(const T* from, int count, bool whole, float* to) {{
    if (whole) {{
        const Group<T> group = *reinterpret_cast<const Group<T>*>(from);
        for (int j = 0; j < {PER_THREAD}; ++j) to[j] = widen(group.at[j]);
    }} else {{
        for (int j = 0; j < {PER_THREAD}; ++j) to[j] = j < count ? widen(from[j]) : 0.0f;
    }}
}}
template <typename T> __device__ __forceinline__ void store(T* to, int count, bool whole, const float* from) {{
    Group<T> group;
    for (int j = 0; j < {PER_THREAD}; ++j) narrow(from[j], group.at[j]);
    if (whole) *reinterpret_cast<Group<T>*>(to) = group;
    else for (int j = 0; j < {PER_THREAD}; ++j) if (j < count) to[j] = group.at[j];
}}
"""

_DROPS = f"""
// core.merging.device_trimming: magnitudes of at least `threshold` bits stay, above it from position `end` on
__device__ __forceinline__ float trim(float value, Position position, int threshold, Position end) {{
    const int magnitude = (int)(__float_as_uint(value) & 0x7FFFFFFFu);
    return magnitude >= threshold + (position >= end) ? value : 0.0f;
}}
// core.merging.counter_masks: a dropped entry is multiplied by 0 and keeps its sign
__device__ __forceinline__ float drop(float value, Position position, const int* keys, int last_kept) {{
    const Position word_at = position >> 1;
    const int* key = keys + 2 * (word_at / {BLOCK_WORDS});
    unsigned word = (unsigned)(word_at % {BLOCK_WORDS});
{"".join(f"    word = (word ^ (word >> {shift})) * {factor}u;{chr(10)}" for shift, factor in TABLE_ROUNDS)}\
    word ^= word >> {TABLE_SHIFT};
    word = (word ^ (unsigned)key[0]) * (unsigned)key[1];
    word = (word ^ (word >> 16)) * {MULTIPLIER % 2**32}u;
    const short number = (short)(position & 1 ? word >> 16 : word & 0xFFFFu);
    return __fmul_rn(value, number <= last_kept ? 1.0f : 0.0f);
}}
"""

Drop = Literal["nothing", "trim", "rescaled", "random"]
"""Entries of a task vector that are dropped; `rescaled`: trimmed, and the rest multiplied by a factor."""


class TermShape(NamedTuple):
    """The generated code of one task vector.

    Attributes:
        values: format of its values.
        own: the values are the expert's own, from which the base's are subtracted.
        drop: entries that are dropped.
    """

    values: torch.dtype
    own: bool
    drop: Drop = "nothing"


class MergeShape(NamedTuple):
    """What a kernel is generated for.

    Attributes:
        out: format of the merged tensor.
        base: format of the base's tensor.
        terms: the task vectors.
        elects: signs are elected (TIES with several task vectors).
        divides: the sum is divided by one number, or, with `elects`, by the weights that agree.
        scales: the sum is multiplied by a factor.
        interpolates: the base and one expert are weighted (SLERP); the other rules are unused.
    """

    out: torch.dtype
    base: torch.dtype
    terms: tuple[TermShape, ...]
    elects: bool = False
    divides: bool = False
    scales: bool = False
    interpolates: bool = False


def source_of(shape: MergeShape) -> str:
    """The kernel's source without `DEVICE_PRELUDE`; `core.merging.tensor_writer.arguments_of` gives its arguments."""
    terms = list(enumerate(shape.terms))
    parameters = [f"{NAMES[shape.out]}* out", f"const {NAMES[shape.base]}* base", "int size", "int aligned"]
    parameters += [parameter for number, term in terms for parameter in _parameters(number, term)]
    merge = _interpolated() if shape.interpolates else _summed(shape)
    return "\n".join(
        [
            _FORMATS + _DROPS,
            f'extern "C" __global__ void {KERNEL}(',
            "    " + ", ".join([*parameters, "double divisor", "double factor"]) + ") {",
            f"    const Position at = ((Position)blockIdx.x * blockDim.x + threadIdx.x) * {PER_THREAD};",
            "    if (at >= size) return;",
            f"    const int count = size - at < {PER_THREAD} ? (int)(size - at) : {PER_THREAD};",
            f"    const bool whole = aligned && count == {PER_THREAD};",
            f"    float bases[{PER_THREAD}], merged[{PER_THREAD}];",
            "    load(base + at, count, whole, bases);",
            *(f"    float read{i}[{PER_THREAD}]; load(values{i} + at, count, whole, read{i});" for i, _ in terms),
            f"    for (int j = 0; j < {PER_THREAD}; ++j) {{",
            *(f"        {line}" for number, term in terms for line in _difference(number, term)),
            *(f"        {line}" for line in merge),
            "    }",
            "    store(out + at, count, whole, merged);",
            "}\n",
        ]
    )


def _parameters(number: int, term: TermShape) -> list[str]:
    trim = [f"const int* bits{number}", f"const Position* end{number}"]
    more = {
        "nothing": [],
        "trim": trim,
        "rescaled": [*trim, f"const double* rescale{number}"],
        "random": [f"const int* keys{number}", f"int last_kept{number}"],
    }
    return [f"const {NAMES[term.values]}* values{number}", f"double weight{number}", *more[term.drop]]


def _difference(number: int, term: TermShape) -> list[str]:
    """Lines that compute the entry of a task vector that is kept, `d0`, `d1`, ..."""
    name, read = f"d{number}", f"read{number}[j]"
    lines = [f"float {name} = {f'__fsub_rn({read}, bases[j])' if term.own else read};"]
    if term.drop in ("trim", "rescaled"):
        lines.append(f"{name} = trim({name}, at + j, *bits{number}, *end{number});")
    if term.drop == "rescaled":
        lines.append(f"{name} = __fmul_rn({name}, (float)*rescale{number});")
    if term.drop == "random":
        lines.append(f"if (j < count) {name} = drop({name}, at + j, keys{number}, last_kept{number});")
    return lines


def _summed(shape: MergeShape) -> list[str]:
    """Lines that compute what `write_sum` and `combine` compute."""
    numbers = range(len(shape.terms))
    lines = [f"const float w{i} = __fmul_rn(d{i}, (float)weight{i});" for i in numbers]
    lines.append("float total = w0;")
    lines += [f"total = __fadd_rn(total, w{i});" for i in numbers[1:]]
    if shape.elects:
        lines += ["const float majority = total >= 0.0f ? 1.0f : -1.0f;", "float agreed = 0.0f, share = 0.0f;"]
        for i in numbers:
            lines.append(f"const float a{i} = __fmul_rn(w{i}, majority);")
            lines.append(f"agreed = __fadd_rn(agreed, a{i} < 0.0f ? 0.0f : a{i});")
            lines.append(f"share = __fadd_rn(share, __fmul_rn(a{i} > 0.0f ? 1.0f : 0.0f, (float)weight{i}));")
        lines.append("total = __fmul_rn(agreed, majority);")
    if shape.divides:
        divisor = "share == 0.0f ? 1.0f : share" if shape.elects else "(float)divisor"
        lines.append(f"total = __fdiv_rn(total, {divisor});")
    if shape.scales:
        lines.append("total = __fmul_rn(total, (float)factor);")
    return [*lines, "merged[j] = __fadd_rn(total, bases[j]);"]


def _interpolated() -> list[str]:
    """Lines that compute what `write_between` computes; `factor` is the base's, `weight0` the expert's."""
    return [
        "const float near = __fmul_rn(bases[j], (float)factor);",
        "merged[j] = __fadd_rn(near, __fmul_rn(__fadd_rn(bases[j], d0), (float)weight0));",
    ]
