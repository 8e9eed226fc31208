"""Maps the tensor names of a checkpoint to the names of its transformers class, without reading weights.

Published checkpoints name the same tensors differently: GPT-2 without `transformer.`, a text model inside an image
model's names, buffers of old releases such as `rotary_emb.inv_freq`. transformers maps all of them while it loads. The
same mapping is applied here to the names in the headers, with an empty model (meta device) of the class, so that
preflight compares what will be loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from core.models.output_layer import output_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

UNUSABLE = (
    *(ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError),
    *(ZeroDivisionError, IndexError, AssertionError),
)
"""What transformers raises for a configuration from which no model can be built."""
_OLD_MASKS = r"attn\.masked_bias$|attention\.masked_bias$"

_WITHOUT_EFFECT = (
    *("quantization_config", "auto_map", "architectures", "dtype", "torch_dtype"),
    *("_attn_implementation", "attn_implementation"),
)
"""Keys of a configuration that do not change which tensors the class has."""
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_NUMBER = re.compile(r"\.(\d+)\.")
_KEPT_CLASSES = 16
_MOST_LAYERS = 300
"""Of a model whose tensors are not known yet."""


class MappedNames(NamedTuple):
    """Names of a checkpoint's tensors in the class of the model.

    Attributes:
        names: name in the checkpoint -> name in the class. Names that the class does not know stay as they are. Buffers
            that are computed instead of loaded are left out.
        heads: name of an output layer that the class can tie -> name of the embedding.
        ties: whether the configuration ties them; an absent key has the class's default.
    """

    names: Mapping[str, str]
    heads: Mapping[str, str]
    ties: bool = False

    def apply(self, tensors: Mapping[str, T]) -> dict[str, T]:
        """`tensors` by their names in the class."""
        return {self.names[name]: tensors[name] for name in tensors if name in self.names}


@dataclass(frozen=True)
class EmptyModel:
    """A model of the class without weights, and how transformers renames tensors for it."""

    model: PreTrainedModel
    known: Mapping[str, Any]
    renamings: list[Any]
    converters: list[Any]

    def rename(self, name: str) -> tuple[str, bool]:
        """The live tensor that a saved one goes to, and whether it is only a part of it (one of several experts)."""
        from transformers.core_model_loading import rename_source_key

        prefix = self.model.base_model_prefix
        target, pattern = rename_source_key(name, self.renamings, self.converters, prefix, self.known)
        return str(target), pattern is not None

    def is_computed(self, name: str) -> bool:
        """Whether transformers leaves this unknown tensor out without a warning."""
        patterns = {_OLD_MASKS, *(self.model._keys_to_ignore_on_load_unexpected or ())}
        buffers = [buffer for buffer, _ in self.model.named_buffers()]
        if any(buffer.endswith("rotary_emb.inv_freq") for buffer in buffers):
            patterns.add(r"rotary_emb\.inv_freq")
        if any(buffer.endswith("position_ids") for buffer in buffers):
            patterns.add(r"(^|\.)position_ids$")
        return any(re.search(pattern, name) for pattern in patterns)


def map_names(names: Iterable[str], config: Mapping[str, Any]) -> MappedNames:
    """Map a checkpoint's tensor names to those of the class that its configuration names.

    Names stay as they are if transformers has no causal language model of the configuration's `model_type`, or cannot
    build one from it. Parts of a tensor that transformers fuses (experts) keep their own names.
    """
    listed = list(names)
    empty = empty_model(config, listed)
    if empty is None:
        return MappedNames({name: name for name in listed}, {})
    mapped = {}
    for name in listed:
        target, is_part = empty.rename(name)
        if target in empty.known:
            mapped[name] = name if is_part else target
        elif not empty.is_computed(target):
            mapped[name] = name
    return MappedNames(mapped, output_layers(empty.model), bool(empty.model.all_tied_weights_keys))


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that the class has with this configuration, by name; {} if it cannot be built."""
    empty = empty_model(config, [f".{_MOST_LAYERS}."])
    if empty is None:
        return {}
    tied = empty.model.all_tied_weights_keys
    return {name: tuple(tensor.shape) for name, tensor in empty.known.items() if name not in tied}


def unlike_configuration(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> str:
    """How a checkpoint's tensors differ from those that its configuration describes, as a phrase; "" if they agree.

    Tensors that the class does not know are no difference: transformers leaves them out.

    Args:
        shapes: of the tensors, by their names in the class.
        config: the model's configuration.
    """
    if not shapes:  # pickles on the Hub, whose tensors are not known yet
        return ""
    layers = [(key, config[key]) for key in _LAYERS if isinstance(config.get(key), int)]
    for key, number in layers:
        if number > _count_layers(shapes):
            return f"config.json has {key} {number:,}; the weights have {_count_layers(shapes):,} layers"
    empty = empty_model(config, list(shapes))
    if empty is None:
        reason = "" if _has_odd_layers(config, shapes) else _build(_effective(config))
        return f"transformers cannot build a model from config.json: {reason}" if reason else ""
    targets = {empty.rename(name)[0] for name in shapes}
    missing = sorted(empty.known.keys() - targets - set(empty.model.all_tied_weights_keys))
    if missing:
        return f"config.json describes {len(missing):,} tensors that the weights lack, such as {missing[0]}"
    known = {name: tuple(tensor.shape) for name, tensor in empty.known.items()}
    for name, shape in shapes.items():
        if known.get(name, shape) != shape:
            return f"{name} has shape {_by(shape)}; config.json describes {_by(known[name])}"
    return ""


def _count_layers(names: Iterable[str]) -> int:
    return max((int(number) for name in names for number in _NUMBER.findall(name)), default=-1) + 1


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def unconverted_names(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, str] | None:
    """Name in the class -> name in the checkpoint, in the class's order; None unless all tensors can be used as saved.

    The checkpoint must hold each parameter of the class once, in its shape, and nothing else.

    Args:
        shapes: of the checkpoint's tensors, by their saved names.
        config: the model's configuration.
    """
    empty = empty_model(config, list(shapes))
    if empty is None or empty.converters or _kept_in_float32(empty.model):
        return None
    targets = {empty.rename(name)[0]: name for name in shapes}
    parameters = {name: tuple(parameter.shape) for name, parameter in empty.model.named_parameters()}
    persistent = {name for name in empty.known if name not in empty.model.all_tied_weights_keys}
    found = {target: shapes[name] for target, name in targets.items()}
    if len(targets) != len(shapes) or persistent != parameters.keys() or found != parameters:
        return None
    return {name: targets[name] for name in parameters}


def _kept_in_float32(model: PreTrainedModel) -> bool:
    """Whether the class keeps some tensors in float32 whatever the format of the others."""
    keys = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    return any(getattr(model, key, None) for key in keys)


def can_be_saved(names: Iterable[str], config: Mapping[str, Any]) -> bool:
    """Whether the names that `save_pretrained` writes for this class map back to all names of the live model.

    It is tried on an empty model. True if no such model can be built: loading it raises the reason.
    """
    from transformers.core_model_loading import revert_weight_conversion

    empty = empty_model(config, list(names))
    if empty is None:
        return True
    live = {name for name in empty.known if name not in empty.model.all_tied_weights_keys}
    try:
        written = revert_weight_conversion(empty.model, {name: empty.known[name] for name in live})
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError):
        return False
    return {empty.rename(name)[0] for name in written} == live


def _has_odd_layers(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether a configuration claims more layers than the checkpoint has, or no number of layers."""
    most = max(1, _count_layers(names))
    layers = [config[key] for key in _LAYERS if key in config]
    return any(not isinstance(number, int) or number > most for number in layers)


def _effective(config: Mapping[str, Any]) -> str:
    reduced = {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT}
    return json.dumps(reduced, sort_keys=True)


def empty_model(config: Mapping[str, Any], names: list[str]) -> EmptyModel | None:
    """The empty model of a configuration, unless it claims more layers than the checkpoint has."""
    if _has_odd_layers(config, names):
        return None  # a damaged configuration: building its model could take very long
    built = _build(_effective(config))
    return built if isinstance(built, EmptyModel) else None


@lru_cache(maxsize=_KEPT_CLASSES)
def _build(config_text: str) -> EmptyModel | str:
    """The empty model of a configuration, or why there is none: "" if transformers has no class of its type."""
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    values = json.loads(config_text)
    if values.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return ""
    try:
        config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        conversions = get_model_conversion_mapping(model)
    except (*UNUSABLE, StrictDataclassError) as error:
        return str(error).strip().partition("\n")[0] or repr(error)
    renamings = [one for one in conversions if isinstance(one, WeightRenaming)]
    converters = [one for one in conversions if isinstance(one, WeightConverter)]
    return EmptyModel(model, model.state_dict(), renamings, converters)
