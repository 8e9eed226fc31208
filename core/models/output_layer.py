"""Decides whether a model's output layer is its embedding (tied), and adapts an expert to the base in this respect.

The same weights can be saved with the output layer left out, or a second time, and a configuration may say either.
Only the values decide: an output layer that equals the embedding is the embedding. An output layer of its own has no
place in a model that computes both from one tensor, so such a pair is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

OWN_OUTPUT_LAYER_HINT = (
    "Use a base with an output layer of its own, or an expert that was trained with the output layer tied."
)


def match_output_layer(state: Mapping[str, Tensor], live: Any, name: str) -> dict[str, Tensor]:
    """An expert's tensors, with its output layer present only if `live` has one of its own.

    Args:
        state: tensors of the expert.
        live: the live model, of the base's class.
        name: the expert's name, for messages.

    Raises:
        ModelError: the base's output layer is its embedding and the expert's is not (code `own-output-layer`).
    """
    import torch

    matched, own = dict(state), {key for key, _ in live.named_parameters()}
    for head, embedding in output_layers(live).items():
        if head in own and head not in matched and embedding in matched:
            matched[head] = matched[embedding]
        elif head not in own and head in matched and embedding in matched:
            if not torch.equal(matched[head], matched[embedding]):
                raise ModelError(
                    f"{name} has an output layer of its own, and the base's output layer is its embedding.",
                    OWN_OUTPUT_LAYER_HINT,
                    code="own-output-layer",
                )
            del matched[head]
    return matched


def output_layers(model: Any) -> dict[str, str]:
    """Name of each output layer that the class of `model` can tie -> name of the embedding."""
    tied = model._tied_weights_keys
    return dict(tied) if isinstance(tied, dict) else {}
