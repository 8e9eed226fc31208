"""Writes merged tensors: on an NVIDIA GPU with one kernel per tensor, elsewhere with torch's operators.

A kernel repeats the operations of `core.merging.arithmetic` for each entry, so the result is the same to the bit.
Before a kernel is used, an example is merged with it and with torch on the processor, and compared; a kernel that is
unavailable, or differs, is not used. Torch's operators also merge formats other than `NAMES`, and task vectors whose
entries are dropped by a callable that no kernel knows, such as DARE's masks of version 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from core.merging import arithmetic
from core.merging.arithmetic import SumRule, Term, term_divisor
from core.merging.counter_masks import LEVELS, CounterDrop
from core.merging.device_trimming import DeviceMagnitudeTrim, DeviceTrim, RescaledTrim
from core.merging.kernel_source import NAMES, PER_THREAD, Drop, MergeShape, TermShape
from core.merging.nvrtc import Argument, Kernel, KernelUnavailable, kernel_of
from core.merging.slerp import Factors
from core.merging.storage import Delta

_LARGEST = 2**31 - 1  # a kernel's size is a 32-bit number
_EXAMPLE = (1 << 19) + 7  # entries: two blocks of random numbers, and a last group that is not full
_WEIGHTS = (0.7, -0.3, 0.9)

Compile = Callable[[MergeShape, torch.device], Kernel]


class TensorWriter:
    """Writes the tensors of one pool.

    Args:
        compile_kernel: makes the kernel of a shape; None = torch's operators only.

    Attributes:
        refused: why torch's operators are used, by the shape of the merge; empty where kernels merge everything.
    """

    def __init__(self, compile_kernel: Compile | None = kernel_of) -> None:
        self._compile = compile_kernel
        self._kernels: dict[MergeShape, Kernel | None] = {}
        self.refused: dict[MergeShape, str] = {}

    def write_sum(self, target: Tensor, base: Tensor, terms: Sequence[Term], rule: SumRule) -> None:
        """Write the base plus a sum of task vectors (`arithmetic.write_sum`)."""
        shape = shape_of_sum(target, base, terms, rule) if self._compile else None
        kernel = self._kernel(shape, target.device) if shape else None
        if kernel is None:
            arithmetic.write_sum(target, base, terms, rule)
        else:
            kernel(arguments_of(target, base, terms, _divisor(terms, rule), rule.factor))

    def write_between(self, target: Tensor, base: Tensor, delta: Delta, factors: Factors) -> None:
        """Write the weighted sum of the base and an expert (`arithmetic.write_between`)."""
        terms = [Term(delta, factors.expert, None)]
        shape = _shape(target, base, terms) if self._compile else None
        kernel = self._kernel(shape._replace(interpolates=True), target.device) if shape else None
        if kernel is None:
            arithmetic.write_between(target, base, delta, factors)
        else:
            kernel(arguments_of(target, base, terms, 1.0, factors.base))

    def _kernel(self, shape: MergeShape, device: torch.device) -> Kernel | None:
        """The compared kernel of a shape; None where it is unavailable or differs from the processor."""
        if shape not in self._kernels:
            self._kernels[shape] = None
            try:
                kernel = cast(Compile, self._compile)(shape, device)
                if agrees(kernel, shape, device):
                    self._kernels[shape] = kernel
                else:
                    self.refused[shape] = "The kernel's example differs from the processor's."
            except KernelUnavailable as error:
                self.refused[shape] = str(error)
        return self._kernels[shape]


def writer_for(device: torch.device) -> TensorWriter:
    """The writer of a pool whose live model is on `device`."""
    return TensorWriter(kernel_of if device.type == "cuda" else None)


def shape_of_sum(target: Tensor, base: Tensor, terms: Sequence[Term], rule: SumRule) -> MergeShape | None:
    """The shape of a sum's kernel; None where only torch's operators can compute it."""
    shape = _shape(target, base, terms)
    elects = rule.elect_signs and len(terms) > 1
    divides = rule.normalize and (elects or bool(_divisor(terms, rule)))
    return shape and shape._replace(elects=elects, divides=divides, scales=rule.factor != 1.0)


def _shape(target: Tensor, base: Tensor, terms: Sequence[Term]) -> MergeShape | None:
    drops = [_drop_of(term) for term in terms]
    tensors = [target, base, *(term.delta.values for term in terms)]
    whole = all(tensor.is_contiguous() and tensor.dtype in NAMES for tensor in tensors)
    same_base = all(term.delta.base is None or term.delta.base.data_ptr() == base.data_ptr() for term in terms)
    if None in drops or not whole or not same_base or not 0 < target.numel() <= _LARGEST:
        return None
    parts = [
        TermShape(term.delta.values.dtype, term.delta.base is not None, cast(Drop, drop))
        for term, drop in zip(terms, drops, strict=True)
    ]
    return MergeShape(target.dtype, base.dtype, tuple(parts))


def _drop_of(term: Term) -> Drop | None:
    """What a kernel drops from a term's entries; None where it cannot."""
    if term.keep is None:
        return "nothing"
    if isinstance(term.keep, RescaledTrim):
        return "rescaled" if isinstance(term.keep.keep, DeviceMagnitudeTrim) else None
    kinds: tuple[tuple[type, Drop], ...] = ((DeviceMagnitudeTrim, "trim"), (CounterDrop, "random"))
    return next((drop for kind, drop in kinds if isinstance(term.keep, kind)), None)


def _divisor(terms: Sequence[Term], rule: SumRule) -> float:
    """The number that a sum without election is divided by; 0 where it is not divided."""
    return term_divisor(terms[0].weight) if rule.elect_signs else rule.total


def arguments_of(target: Tensor, base: Tensor, terms: Sequence[Term], divisor: float, factor: float) -> list[Argument]:
    """A kernel's arguments, in the order of `core.merging.kernel_source.source_of`."""
    size = target.numel()
    tensors = [target, base, *(term.delta.values for term in terms)]
    aligned = all(tensor.data_ptr() % (PER_THREAD * tensor.element_size()) == 0 for tensor in tensors)
    arguments: list[Argument] = [target, base, size, int(aligned)]
    for delta, weight, keep in terms:
        arguments += [delta.values, float(weight)]
        if isinstance(keep, CounterDrop):
            arguments += [keep.block_keys(size, target.device), keep.last_kept]
        elif isinstance(keep, RescaledTrim):
            arguments += [*cast(DeviceMagnitudeTrim, keep.keep).trim, keep.factor.double()]
        elif keep is not None:
            arguments += [*cast(DeviceMagnitudeTrim, keep).trim]
    return [*arguments, float(divisor), float(factor)]


class _Example(NamedTuple):
    """Operands of a small merge, and the tensor that it is written to."""

    target: Tensor
    base: Tensor
    terms: list[Term]


def agrees(kernel: Kernel, shape: MergeShape, device: torch.device) -> bool:
    """Whether a kernel merges an example to the same bits as torch's operators do on the processor."""
    there, here = _example(shape, device), _example(shape, torch.device("cpu"))
    rule = _example_rule(shape)
    factors = Factors(0.6, here.terms[0].weight)
    if shape.interpolates:
        arithmetic.write_between(here.target, here.base, here.terms[0].delta, factors)
    else:
        arithmetic.write_sum(here.target, here.base, here.terms, rule)
    factor = factors.base if shape.interpolates else rule.factor
    kernel(arguments_of(*there, _divisor(there.terms, rule), factor))
    return torch.equal(there.target.cpu().view(torch.uint8), here.target.view(torch.uint8))


def _example_rule(shape: MergeShape) -> SumRule:
    return SumRule(shape.elects, shape.divides, total=1.3, factor=0.8 if shape.scales else 1.0)


def _example(shape: MergeShape, device: torch.device) -> _Example:
    """The same operands on every device."""
    generator = torch.Generator().manual_seed(0)

    def values(dtype: torch.dtype, scale: float) -> Tensor:
        return (scale * torch.randn(_EXAMPLE, generator=generator)).to(dtype).to(device)

    base = values(shape.base, 1.0)
    terms = []
    for number, term in enumerate(shape.terms):
        delta = Delta(values(term.values, 1.0 if term.own else 0.1), base if term.own else None)
        terms.append(Term(delta, _WEIGHTS[number % len(_WEIGHTS)], _example_keep(term.drop, number, device)))
    return _Example(torch.empty(_EXAMPLE, dtype=shape.out, device=device), base, terms)


def _example_keep(drop: Drop, number: int, device: torch.device) -> arithmetic.Keep | None:
    if drop == "nothing":
        return None
    if drop == "random":
        return CounterDrop(number, "example", "tensor", (LEVELS // 3 + number) / LEVELS)
    bits = torch.tensor(0.07 + number / 100).view(torch.int32)
    trim = DeviceMagnitudeTrim(DeviceTrim(bits.to(device), torch.tensor(_EXAMPLE // 2).to(device)))
    return trim if drop == "trim" else RescaledTrim(trim, torch.tensor(1.7, dtype=torch.float64).to(device))
