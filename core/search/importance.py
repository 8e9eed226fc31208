"""Sums what each training pair's gradient says about each weight, one pair and one tensor's gradient at a time.

Two contributions of a pair with the loss L = -log p(answer | question), the sum over the answer's tokens: `SNIP` (arXiv
1810.02340), which LED-Merging ranks, and `SQUARES`, whose mean is the diagonal of the empirical Fisher matrix. On a GPU
deterministic kernels are used, so that a resumed run gets the same sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from core.data.training_pairs import Sample
from core.errors import OutOfMemory
from core.models.chat_format import EncodedPair, encode_pair
from core.models.out_of_memory import free_cached, translate_oom
from core.search.gradient.backward import checkpointed_blocks, gradients_contracted

_ANSWER_TOKENS = 512
"""Longer answers are cut, as where they are scored."""


class Contribution(NamedTuple):
    """What a pair adds to the sum of each weight.

    Attributes:
        add: adds a gradient's contribution to a float32 sum; it may overwrite the gradient.
        weighted: each finished sum is multiplied by |theta|.
    """

    add: Callable[[Tensor, Tensor], object]
    weighted: bool


SNIP = Contribution(lambda total, gradient: total.add_(gradient.abs_()), weighted=True)
"""|theta dL/dtheta|, the first-order estimate of how the loss changes when a weight is set to 0."""
SQUARES = Contribution(lambda total, gradient: total.add_(gradient.float().square_()), weighted=False)
"""(dL/dtheta)^2."""


@dataclass
class ImportanceSums:
    """Sums of contributions over training pairs.

    Attributes:
        contribution: of one pair.
        device: where the sums are held.
        checkpointing: blocks are run again in the backward pass; set when their activations do not fit.
        sums: by tensor, float32, of the pairs read so far.
    """

    contribution: Contribution
    device: torch.device
    checkpointing: bool = False
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, model: Any, tokenizer: Any, samples: Sequence[Sample], names: Collection[str]) -> Iterator[int]:
        """Start new sums and add the pairs, yielding how many are done.

        Args:
            model: holds the weights that are differentiated.
            tokenizer: of the pairs.
            samples: the pairs.
            names: of the parameters; names of other tensors are left out. Without any, no pair is read.

        Raises:
            OutOfMemory: a single pair does not fit, even with checkpointed blocks.
        """
        while True:
            try:
                yield from self._add_all(model, tokenizer, samples, names)
            except OutOfMemory:
                if self.checkpointing:
                    raise
                free_cached()
                self.checkpointing = True  # sums of a half-read pair are of no use: start again
            else:
                return

    def _add_all(self, model: Any, tokenizer: Any, samples: Sequence[Sample], names: Collection[str]) -> Iterator[int]:
        named = {name: tensor for name, tensor in model.named_parameters() if name in names}
        self.sums = {}
        with translate_oom("The importance scores"):
            for name, tensor in named.items():
                self.sums[name] = torch.zeros(tensor.shape, dtype=torch.float32, device=self.device)
        for done, sample in enumerate(samples if named else (), start=1):
            with translate_oom("The backward pass of a training pair"), deterministic(model.device):
                self._add_pair(model, encode_pair(tokenizer, sample.question, sample.answer, _ANSWER_TOKENS), named)
            yield done
        for name, total in self.sums.items() if self.contribution.weighted else ():
            total *= named[name].detach().abs().to(self.device)

    def _add_pair(self, model: Any, pair: EncodedPair, named: dict[str, Tensor]) -> None:
        def add(name: str, gradient: Tensor) -> None:
            with torch.no_grad():
                self.contribution.add(self.sums[name], gradient.to(self.device))

        with (
            checkpointed_blocks(model) if self.checkpointing else nullcontext(),
            gradients_contracted(model, list(named), add),
            torch.enable_grad(),
        ):
            loss = negative_log_likelihood(model, pair)
            if loss.requires_grad:  # else it depends on none of the parameters
                loss.backward()  # type: ignore[no-untyped-call]


def negative_log_likelihood(model: Any, pair: EncodedPair) -> Tensor:
    """() -log p(answer | question) in nats, by the model's own attention instead of that of packed rows.

    The kernel that scores packed rows has no deterministic backward pass.
    """
    ids = torch.tensor(pair.input_ids, device=model.device)
    places = torch.arange(pair.answer_start - 1, len(ids) - 1, device=model.device)
    logits = model(input_ids=ids[None], use_cache=False, logits_to_keep=places).logits[0].float()
    return F.cross_entropy(logits, ids[places + 1], reduction="sum")


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Within the context operations on a GPU give the same bits every time, where torch has such a kernel."""
    if device.type == "cpu":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
