"""Runs a model's weights under the configuration, generation settings and tokenizer that belong to them.

A pool has one live model whose weights are overwritten. Tensors of equal shape may still belong to configurations that
compute different things: another rope theta or scaling, a sliding window, an epsilon, a cap or multiplier. So a member
with other settings gets modules of its own, built from its own configuration, that share the live model's tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from core.errors import ModelError
from core.models.class_tensors import UNUSABLE
from core.models.loading import load_tokenizer, locate, tokenizer_or
from core.models.references import ModelReference
from core.models.saved_format import saved_format, set_saved_format
from core.settings import Settings

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WITHOUT_EFFECT = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "attn_pdrop",
        "auto_map",
        "cache_implementation",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "dtype",
        "embd_pdrop",
        "finetuning_task",
        "hidden_dropout",
        "id2label",
        "initializer_range",
        "label2id",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "resid_pdrop",
        "return_dict",
        "router_aux_loss_coef",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "vocab_size",
    }
)
"""Configuration keys that change neither the logits of a given text nor where a reply ends; the vocabulary's size and
the number format are compared elsewhere."""

_OF_THE_POOL = ("vocab_size", "pad_token_id", "tie_word_embeddings")
"""Keys of the tensors' layout, which is the live model's for every member."""


@dataclass(frozen=True)
class OwnSettings:
    """What belongs to a model besides its weights."""

    config: PretrainedConfig
    generation: Any
    tokenizer: Any


def read_own_settings(
    ref: ModelReference, settings: Settings, template: str | None = None, otherwise: Any = None
) -> OwnSettings:
    """A model's configuration, generation settings and tokenizer; an adapter has its base's.

    Args:
        ref: of the model.
        settings: of this machine.
        template: prompt format that replaces the model's own (`core.models.prompt_formats`).
        otherwise: the tokenizer of a model that was saved without one; None makes that an error.

    Raises:
        ModelError: one of the files is missing or cannot be read.
    """
    from transformers import AutoConfig, GenerationConfig

    folder = locate(ref, settings).folder
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        generation = (
            GenerationConfig.from_pretrained(folder, local_files_only=True)
            if (folder / "generation_config.json").is_file()
            else GenerationConfig.from_model_config(config)
        )
    except (OSError, *UNUSABLE) as error:
        message = f"The configuration of {ref} cannot be read: {str(error).strip().partition(chr(10))[0]}"
        raise ModelError(message, "Save the model with transformers again.", code="config-unreadable") from error
    tokenizer = (
        load_tokenizer(ref, settings, template)
        if otherwise is None
        else tokenizer_or(otherwise, ref, settings, template)
    )
    return OwnSettings(config, generation, tokenizer)


def configuration_values(config: PretrainedConfig) -> dict[str, Any]:
    """The values of a configuration by key, with the defaults of its class, without keys that have no effect.

    Nested values are written flat. `rope_parameters` is written as its parts, so that both spellings of transformers
    give the same keys: `rope_theta`, `rope_type`, `factor` and so on.
    """
    return dict(_flat(config.get_text_config().to_dict()))


def same_configuration(first: PretrainedConfig, second: PretrainedConfig) -> bool:
    """Whether two configurations give the same logits for the same weights and text, and name the same end tokens."""
    return _computing(first) == _computing(second)


def same_generation(first: Any, second: Any) -> bool:
    """Whether two generation configurations have the same settings."""
    return _generation_values(first) == _generation_values(second)


def under_settings(live: Any, config: PretrainedConfig, generation: Any) -> Any:
    """A model that computes as `config` says, with the tensors of `live`: what is written to one is in both.

    Only buffers that a configuration determines, such as rotary frequencies, are its own.

    Args:
        live: a loaded model of the same architecture.
        config: configuration of the new model.
        generation: generation configuration of the new model.

    Raises:
        ModelError: the configuration describes tensors that `live` does not have (code `config-mismatch`).
    """
    own = _adapted(config, live)
    with torch.device("meta"):
        model = type(live)(own)
    tensors = dict(live.named_parameters(remove_duplicate=False)) | dict(live.named_buffers(remove_duplicate=False))
    _compute_buffers(model, tensors, live.device)
    for place, module in model.named_modules():
        for name in module._parameters:
            if module._parameters[name] is not None:
                module._parameters[name] = _shared(tensors, _join(place, name))
        for name in module._buffers.keys() - module._non_persistent_buffers_set:
            if module._buffers[name] is not None:
                module._buffers[name] = _shared(tensors, _join(place, name))
    model.generation_config = copy.deepcopy(generation)
    set_saved_format(model, saved_format(live))
    return model.eval()


def _adapted(config: PretrainedConfig, live: Any) -> PretrainedConfig:
    """A copy of a configuration with the live model's layout of tensors, number format and attention."""
    own = copy.deepcopy(config)
    if type(own) is not type(live.config):
        own = own.get_text_config()
    for key in _OF_THE_POOL:
        if hasattr(live.config, key):
            setattr(own, key, getattr(live.config, key))
    own.dtype, own.return_dict = live.config.dtype, True
    own._attn_implementation = live.config._attn_implementation
    return own


def _compute_buffers(model: Any, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Compute the buffers that no checkpoint has, as transformers does after it has loaded one."""
    owners = []
    for place, module in model.named_modules():
        names = [name for name in module._non_persistent_buffers_set if module._buffers.get(name) is not None]
        for name in names:
            like = tensors.get(_join(place, name))
            dtype = module._buffers[name].dtype if like is None else like.dtype
            module._buffers[name] = torch.zeros(module._buffers[name].shape, dtype=dtype, device=device)
        if names:
            owners.append(module)
    for module in owners:  # the parameters are still on the meta device, where initialization does nothing
        model._init_weights(module)


def _shared(tensors: Mapping[str, torch.Tensor], name: str) -> Any:
    if name not in tensors:
        raise ModelError(
            f"The configuration describes a tensor that the pool's models do not have: {name}.",
            "Choose models fine-tuned from the same original.",
            code="config-mismatch",
        )
    return tensors[name]


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if (not prefix and key in WITHOUT_EFFECT) or (key == "type" and "rope_type" in values):  # its older spelling
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, prefix if key == "rope_parameters" else f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _computing(config: PretrainedConfig) -> dict[str, Any]:
    return {key: value for key, value in configuration_values(config).items() if key not in _OF_THE_POOL}


def _generation_values(generation: Any) -> dict[str, Any]:
    values = generation.to_dict()
    return {key: value for key, value in values.items() if key not in ("transformers_version", "_from_model_config")}
