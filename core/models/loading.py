"""Loads models and tokenizers: no pickles in this process, no code from repositories, LoRA adapters merged.

Every reference is first resolved to a folder on this machine, and to an adapter's folder where it names one.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import ModelError
from core.models import hub
from core.models.class_tensors import UNUSABLE
from core.models.demo_base import ensure_base
from core.models.files import find_weights, open_files
from core.models.model_view import make_view
from core.models.overflow_check import refuse_overflow
from core.models.pickled_weights import convert
from core.models.prompt_formats import set_format
from core.models.references import DEMO_ADAPTERS, DEMO_BASE, ModelReference
from core.models.saved_format import in_saved_format
from core.models.shards import open_shards
from core.models.weight_files import is_plain
from core.settings import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    State = Mapping[str, torch.Tensor]


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer_config.json",
)
"""A model with none of these files was saved without a tokenizer."""


class LocalModel(NamedTuple):
    """Folders of a model on this machine; `adapter` is None for a model without one."""

    folder: Path
    adapter: Path | None


def locate(ref: ModelReference, settings: Settings) -> LocalModel:
    """Download or prepare a model where needed, and return its folders.

    Raises:
        ModelError: it is missing, gated, unreachable, or has no safetensors weights.
    """
    if ref.kind == "demo":
        folder = ensure_base(settings)
        if ref.source != DEMO_BASE:
            return LocalModel(folder, DEMO_ADAPTERS / ref.source)
    else:
        folder = _weights_folder(ref.base, "model", settings)
    adapter = None if ref.adapter is None else _weights_folder(ref.adapter, "adapter_model", settings)
    return LocalModel(folder, adapter)


def load_tokenizer(ref: ModelReference, settings: Settings, template: str | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer (an adapter uses its base's); downloads no weights, except for demo models.

    One without a chat template gets that of the prompt format that the model's name shows, if it shows one.

    Args:
        ref: of the model.
        settings: of this machine.
        template: prompt format that replaces the model's own (`core.models.prompt_formats`).

    Raises:
        ModelError: the tokenizer is missing or cannot be read, or there is no such prompt format.
    """
    from transformers import AutoTokenizer

    folder = ensure_base(settings) if ref.kind == "demo" else _texts_folder(ref.base, settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # tokenizers raises a bare Exception for a file that it cannot read.
        if type(error) is not Exception and not isinstance(error, (OSError, *UNUSABLE)):
            raise
        raise _no_tokenizer(ref, folder, error) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _processor_template(folder)
    set_format(tokenizer, ref, template)
    return tokenizer


def _no_tokenizer(ref: ModelReference, folder: Path, error: Exception) -> ModelError:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES if name != "tokenizer_config.json"):
        hint = "Copy tokenizer.json and tokenizer_config.json from the model that it was fine-tuned from."
        return ModelError(f"{ref} was saved without a tokenizer.", hint, code="tokenizer-unreadable")
    hint = _REMOTE_CODE if "custom code" in str(error) else "Save the tokenizer again, or copy that of the original."
    message = f"The tokenizer of {ref} cannot be read: {_first_line(error)}"
    return ModelError(message, hint, code="tokenizer-unreadable")


def _processor_template(folder: Path) -> Any:
    """The template in `chat_template.json`, which transformers reads for image models only; None without one."""
    try:
        return json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tokenizer_or(otherwise: Any, ref: ModelReference, settings: Settings, template: str | None = None) -> Any:
    """The model's tokenizer, or `otherwise` for a model that was saved without one.

    Args:
        otherwise: a tokenizer, usually that of the pool's base.
        ref: of the model.
        settings: of this machine.
        template: as for `load_tokenizer`.

    Raises:
        ModelError: as for `load_tokenizer`.
    """
    if ref.kind == "demo" or any((_texts_folder(ref.base, settings) / name).is_file() for name in TOKENIZER_FILES):
        return load_tokenizer(ref, settings, template)
    if template is None:
        return otherwise
    own = copy.deepcopy(otherwise)
    set_format(own, ref, template)
    return own


def load_model(
    ref: ModelReference, settings: Settings, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """The model, ready to generate: evaluation mode, no gradients, LoRA adapter merged.

    An adapter is merged in float32, and only the sum is rounded to `dtype`: in bfloat16 half of a small adapter's
    changes would be lost.

    Args:
        ref: of the model.
        settings: of this machine.
        dtype: of the parameters (`core.models.precision` chooses one).
        device: where the parameters are stored.

    Raises:
        ModelError: no safetensors weights, an architecture that needs code from its repository, or weights that do
            not match the architecture.
    """
    import torch

    local = locate(ref, settings)
    if local.adapter is None:
        model = _read_model(local.folder, ref, dtype, device=device)
    else:  # merged on the CPU, so that the sum has the same bits on every machine
        model = cast_parameters(
            _merge_adapter(_read_model(local.folder, ref, torch.float32), local.adapter, ref), dtype
        )
    return _ready(model, ref, device)


def load_classifier(
    ref: ModelReference, settings: Settings, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """A model with a classification head, ready to use; arguments and errors as for `load_model`."""
    local = locate(ref, settings)
    return _ready(_read_model(local.folder, ref, dtype, "AutoModelForSequenceClassification"), ref, device)


def _ready(model: PreTrainedModel, ref: ModelReference, device: torch.device | str) -> PreTrainedModel:
    """The model in evaluation mode on its device, checked for overflow where its format is float16."""
    ready = model.eval().requires_grad_(False).to(device)
    if ready.device.type == "cuda":
        refuse_overflow(ready, str(ref))
    return ready


def cast_parameters(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Cast the parameters of `model` to `dtype` in place; buffers (rotary frequencies) keep their own."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def load_state(ref: ModelReference, settings: Settings, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The model's tensors on the CPU, by the names that its transformers class uses.

    Tied tensors (an output layer that is the embedding) appear once, under the first name.

    Args:
        ref: of the model.
        settings: of this machine.
        dtype: of floating-point tensors.

    Raises:
        ModelError: as for `load_model`.
    """
    return untied_state(load_model(ref, settings, dtype))


def open_state(
    ref: ModelReference, settings: Settings, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> AbstractContextManager[State]:
    """The model's tensors, as `load_state` returns them, but read one after the other where possible.

    Tensors that are read from the files as they are have the format in which they are saved; it holds the same values.

    Args:
        ref: of the model.
        settings: of this machine.
        dtype: of floating-point tensors, where the model has to be loaded.
        device: where tensors that are read one after the other are stored; others are on the CPU.

    Raises:
        ModelError: as for `load_model`.
    """
    local = locate(ref, settings)
    shards = open_shards(local.folder, str(device)) if local.adapter is None else None
    return shards if shards is not None else nullcontext(load_state(ref, settings, dtype))


def untied_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Parameters and saved buffers of a loaded model (views, not copies), without tied duplicates."""
    kept = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return {name: tensor for name, tensor in model.state_dict().items() if name in kept}


def saved_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors that `save_pretrained` writes, by their saved names.

    Some classes have other names in memory than on disk (GPT-NeoX), or compute with several saved tensors in one (the
    experts of Mixtral). For all others this is `untied_state`.
    """
    from transformers.core_model_loading import revert_weight_conversion

    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    state = {name: tensor for name, tensor in untied_state(model).items() if name not in ignored}
    return dict(revert_weight_conversion(model, in_saved_format(model, state)))


def vocabulary_size(ref: ModelReference, settings: Settings) -> int:
    """Number of rows of the model's embedding, from its configuration."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(locate(ref, settings).folder, local_files_only=True, trust_remote_code=False)
    return int(config.vocab_size)


_REMOTE_CODE = "Models that need code from their repository are not loaded; choose one that transformers supports."

_DAMAGED = "The file is damaged: download, copy or export it again."
_MISSING = "Found missing adapter keys"
"""Start of peft's warning."""


def _texts_folder(ref: ModelReference, settings: Settings) -> Path:
    return ref.folder if ref.kind == "folder" else hub.fetch(ref, settings, weights=False)


def _weights_folder(ref: ModelReference, stem: str, settings: Settings) -> Path:
    """A folder from which transformers reads the chosen weights; pickles are converted."""
    files = open_files(ref, settings)
    chosen = find_weights(files, stem, str(ref))
    texts, weights = files.local_texts(), files.local_weights(chosen.names)
    if chosen.format == "pickle":
        weights = convert(weights, str(ref), settings)
    elif all(path.parent == texts for path in weights) and is_plain(chosen, stem, files.sizes):
        return texts
    return make_view(texts, weights, stem, settings)


def _read_model(
    folder: Path,
    ref: ModelReference,
    dtype: torch.dtype,
    head: str = "AutoModelForCausalLM",
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """The model as transformers reads it; on a GPU its tensors are read straight into the GPU's memory."""
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        use_plain_outputs(config)
        _refuse_quantized(config, ref)
        model, info = getattr(transformers, head).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            device_map={"": device} if torch.device(device).type == "cuda" else None,
        )
    except (OSError, *UNUSABLE, StrictDataclassError) as error:
        message = f"{ref} cannot be loaded: {_first_line(error)}"
        raise ModelError(message, _REMOTE_CODE, code="model-not-loadable") from error
    except SafetensorError as error:
        message = f"The weights of {ref} cannot be read: {_first_line(error)}"
        raise ModelError(message, _DAMAGED, code="damaged-safetensors") from error
    _check_complete(info, ref)
    return model


def use_plain_outputs(config: PretrainedConfig) -> None:
    """Reset what a configuration says about its author's program: the form of outputs and the attention kernel."""
    config.return_dict, config.output_attentions, config.output_hidden_states = True, False, False
    if config._attn_implementation not in (None, "eager", "sdpa"):
        config._attn_implementation = None


def _refuse_quantized(config: PretrainedConfig, ref: ModelReference) -> None:
    if getattr(config, "quantization_config", None):
        hint = "Use the full-precision model that it was made from."
        raise ModelError(f"{ref} is quantized.", hint, code="quantized")


def _check_complete(info: dict[str, Any], ref: ModelReference) -> None:
    """Raise `ModelError` for missing tensors, which transformers would replace by random values."""
    missing = sorted(info["missing_keys"]) + [str(item[0]) for item in info["mismatched_keys"]]
    if missing:
        raise ModelError(
            f"The weights of {ref} lack {len(missing)} tensors; the first is {missing[0]}.",
            "The checkpoint is incomplete or not a language model; download or export it again.",
            code="weights-incomplete",
        )


def _merge_adapter(model: PreTrainedModel, adapter: Path, ref: ModelReference) -> PreTrainedModel:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft still reads it
            warnings.filterwarnings("error", _MISSING)  # peft would treat missing tensors as untrained
            return PeftModel.from_pretrained(model, adapter, local_files_only=True).merge_and_unload()
    except UserWarning as warning:
        count = str(warning).count("base_model.")
        message = f"The adapter of {ref} lacks {count} of its tensors."
        raise ModelError(message, _DAMAGED, code="adapter-incomplete") from warning
    except (OSError, *UNUSABLE) as error:
        raise ModelError(
            f"The adapter of {ref} does not fit its base: {_first_line(error)}",
            "Name the base that it was trained on.",
            code="adapter-mismatch",
        ) from error
    except SafetensorError as error:
        message = f"The adapter of {ref} cannot be read: {_first_line(error)}"
        raise ModelError(message, _DAMAGED, code="damaged-safetensors") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
