"""Reads a model's metadata before its weights are downloaded: configuration, tensor shapes, tokenizer, license.

It contains everything that can make a merge fail later, so that preflight reports problems within seconds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.errors import ModelError
from core.models.class_tensors import MappedNames, expected_shapes, map_names
from core.models.demo_base import base_folder, is_prepared
from core.models.files import (
    FolderFiles,
    ModelFiles,
    TensorFacts,
    WeightFacts,
    open_files,
    read_json,
    read_sample,
    read_weights,
)
from core.models.prompt_formats import default_template
from core.models.references import DEMO_ADAPTERS, DEMO_BASE, ModelReference
from core.models.tokenizer_facts import TokenizerFacts, read_tokenizer
from core.settings import ASSETS, Settings

DEMO_FACTS = ASSETS / "demo" / "base"
DEMO_LICENSE = "apache-2.0"
_WEIGHTS_RECORD = "facts.json"
_SAMPLE_BYTES = 65_536
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True)
class AdapterMetadata:
    """A LoRA adapter: its `adapter_config.json` and tensors.

    Attributes:
        same_head: whether a whole embedding and output layer that it brings along agree, as far as a sample shows.
    """

    config: dict[str, Any]
    tensors: dict[str, TensorFacts]
    size_bytes: int
    same_head: bool | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """A model as its small files describe it.

    Attributes:
        ref: the reference that names it.
        config: content of `config.json`.
        tensors: by name, as saved.
        tokenizer: its vocabulary.
        chat_template: None when it has none.
        license: None when none is stated.
        gated: whether its license must be accepted on the Hub.
        size_bytes: of the weight files, with an adapter's.
        cached: whether the weights are already on this machine.
        adapter: of a `base+lora` reference.
        heads: name of an output layer that the class can tie -> name of the embedding; {} if the class is unknown.
        ties: whether the configuration ties them.
        same_head: whether the saved output layer equals the embedding, as far as a sample shows; None if only one of
            them is saved, or if it cannot be read yet.
        pickled_bytes: size of the files that are pickles and have to be converted, with an adapter's.
        conversion: revision and commit of the Hub's conversion to safetensors that is used, "" without one.
        leftover_adapter: whether an adapter lies beside the whole weights; it is never applied.
    """

    ref: ModelReference
    config: dict[str, Any]
    tensors: dict[str, TensorFacts]
    tokenizer: TokenizerFacts
    chat_template: str | None
    license: str | None
    gated: bool
    size_bytes: int
    cached: bool
    adapter: AdapterMetadata | None = None
    heads: Mapping[str, str] = field(default_factory=dict)
    ties: bool = False
    same_head: bool | None = None
    pickled_bytes: int = 0
    conversion: str = ""
    leftover_adapter: bool = False

    @property
    def architecture(self) -> str:
        """Class name of the model; "" when the configuration has none."""
        return str((self.config.get("architectures") or [""])[0])

    @property
    def has_own_head(self) -> bool:
        """Whether the output layer is a tensor of its own when the model is loaded."""
        return any(head in self.own_tensors for head in self.heads)

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def parameters(self) -> int:
        """Number of weights; tied tensors count once."""
        return sum(math.prod(tensor.shape) for tensor in self.own_tensors.values())

    @property
    def own_tensors(self) -> dict[str, TensorFacts]:
        """`tensors` without an output layer that is tied to the embedding but saved a second time."""
        tied = {"lm_head.weight"} if self.config.get("tie_word_embeddings") else set()
        if self.heads:
            tied = set(self.heads) if self.ties and self.same_head is not False else set()
        return {name: facts for name, facts in self.tensors.items() if name not in tied}

    @property
    def dtype(self) -> str:
        """Most common safetensors dtype of the tensors."""
        counts = Counter(tensor.dtype for tensor in self.tensors.values())
        return counts.most_common(1)[0][0] if counts else ""


def read_metadata(ref: ModelReference, settings: Settings) -> ModelMetadata:
    """Read a model's metadata; downloads small text files at most.

    Raises:
        ModelError: the model is missing, gated, unreachable, has no `config.json` or no safetensors weights, or is an
            adapter without its base.
    """
    if ref.kind == "demo":
        return _demo_metadata(ref, settings)
    metadata = _from_files(ref, open_files(ref.base, settings), settings)
    if ref.adapter is None:
        return metadata
    return _with_adapter(metadata, ref, open_files(ref.adapter, settings), settings)


def _from_files(ref: ModelReference, files: ModelFiles, settings: Settings) -> ModelMetadata:
    source = str(ref.base)
    if "config.json" not in files.sizes:
        raise _not_a_model(files, source)
    weights = read_weights(files, "model", source, settings)
    return _assemble(ref, files, weights, read_tokenizer(files, source), cached=files.cached)


def _assemble(
    ref: ModelReference, files: ModelFiles, weights: WeightFacts, tokenizer: TokenizerFacts, *, cached: bool
) -> ModelMetadata:
    source = str(ref.base)
    config = read_json(files, "config.json", source)
    read_json(files, "generation_config.json", source)  # raises the error of a malformed one
    saved = weights.tensors or _expected_tensors(config)
    mapped = map_names(saved, config)
    return ModelMetadata(
        ref=ref,
        config=config,
        tensors=mapped.apply(saved),
        tokenizer=tokenizer,
        chat_template=_read_chat_template(files, source),
        license=files.license,
        gated=files.gated,
        size_bytes=weights.size_bytes,
        cached=cached,
        heads=mapped.heads,
        ties=mapped.ties,
        same_head=_same_head(files, weights, mapped),
        pickled_bytes=weights.size_bytes * weights.pickled,
        conversion=files.conversion,
        leftover_adapter="adapter_config.json" in files.sizes,
    )


def _expected_tensors(config: dict[str, Any]) -> dict[str, TensorFacts]:
    """The tensors of pickled weights that are not on this machine yet, as the configuration describes them."""
    dtype = _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "F32")
    return {name: TensorFacts(shape, dtype) for name, shape in expected_shapes(config).items()}


def _same_head(files: ModelFiles, weights: WeightFacts, mapped: MappedNames) -> bool | None:
    """Whether the saved output layer and embedding agree in a sample."""
    saved = {mapped.names[name]: name for name in weights.files if name in mapped.names}
    for head, embedding in mapped.heads.items():
        if head not in saved or embedding not in saved:
            continue
        first, second = saved[head], saved[embedding]
        if weights.tensors[first].shape != weights.tensors[second].shape:
            return False
        if weights.tensors[first].dtype == weights.tensors[second].dtype:
            samples = [read_sample(files, weights, name, _SAMPLE_BYTES) for name in (first, second)]
            return samples[0] == samples[1]
    return None


def _with_adapter(metadata: ModelMetadata, ref: ModelReference, files: ModelFiles, settings: Settings) -> ModelMetadata:
    source = str(ref.adapter or ref)
    config = read_json(files, "adapter_config.json", source)
    if config.get("peft_type") != "LORA":
        hint = "Write base+lora with a PEFT adapter after the '+'."
        raise ModelError(f"{source} is not a LoRA adapter.", hint, code="not-a-lora-adapter")
    weights = read_weights(files, "adapter_model", source, settings)
    whole = {_adapter_target(name): name for name in weights.tensors}
    same_head = _same_head(
        files, weights, MappedNames({name: target for target, name in whole.items()}, metadata.heads)
    )
    return replace(
        metadata,
        ref=ref,
        gated=metadata.gated or files.gated,
        size_bytes=metadata.size_bytes + weights.size_bytes,
        cached=metadata.cached and files.cached,
        pickled_bytes=metadata.pickled_bytes + weights.size_bytes * weights.pickled,
        adapter=AdapterMetadata(config, weights.tensors, weights.size_bytes, same_head),
    )


def _adapter_target(name: str) -> str:
    """The base's tensor that an adapter's tensor of this name replaces."""
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")


def _demo_metadata(ref: ModelReference, settings: Settings) -> ModelMetadata:
    """Metadata from the prepared base, or from the recorded facts while it is not prepared."""
    if is_prepared(settings):
        metadata = _from_files(ref, FolderFiles(base_folder(settings), DEMO_LICENSE), settings)
    else:
        weights, tokenizer = read_recorded_facts()
        metadata = _assemble(ref, FolderFiles(DEMO_FACTS, DEMO_LICENSE), weights, tokenizer, cached=False)
    if ref.source != DEMO_BASE:
        adapter = ModelReference("folder", str(DEMO_ADAPTERS / ref.source))
        return _with_adapter(metadata, ref, FolderFiles(adapter.folder), settings)
    if ref.adapter is None:
        return metadata
    return _with_adapter(metadata, ref, open_files(ref.adapter, settings), settings)


def read_recorded_facts() -> tuple[WeightFacts, TokenizerFacts]:
    """Weights and tokenizer of the demo's base as recorded in the repository by `record_facts`."""
    data = json.loads((DEMO_FACTS / _WEIGHTS_RECORD).read_text(encoding="utf-8"))
    tensors = {name: TensorFacts(tuple(shape), data["dtype"]) for name, shape in data["shapes"].items()}
    added = {int(number): text for number, text in data["added_tokens"].items()}
    tokenizer = TokenizerFacts(data["vocabulary_sha256"], data["vocabulary_size"], added)
    return WeightFacts(tensors, data["size_bytes"]), tokenizer


def record_facts(metadata: ModelMetadata) -> str:
    """The JSON that `read_recorded_facts` reads, from the metadata of a prepared base."""
    data = {
        "size_bytes": metadata.size_bytes,
        "vocabulary_sha256": metadata.tokenizer.sha256,
        "vocabulary_size": metadata.tokenizer.size,
        "added_tokens": metadata.tokenizer.added,
        "dtype": metadata.dtype,
        "shapes": {name: facts.shape for name, facts in sorted(metadata.tensors.items())},
    }
    return json.dumps(data)


def _not_a_model(files: ModelFiles, source: str) -> ModelError:
    if "adapter_config.json" in files.sizes:
        base = read_json(files, "adapter_config.json", source).get("base_model_name_or_path") or "BASE"
        message = f"{source} is a LoRA adapter, not a whole model."
        return ModelError(message, f"Write {base}+{source}.", code="adapter-without-base")
    if any(name.endswith(".gguf") for name in files.sizes):
        return ModelError(f"{source} has only GGUF files.", "Use the original safetensors model.", code="gguf-only")
    hint = "Name a folder or repository saved by transformers."
    return ModelError(f"{source} has no config.json.", hint, code="no-config")


def _read_chat_template(files: ModelFiles, source: str) -> str | None:
    if "chat_template.jinja" in files.sizes:
        return default_template(files.text("chat_template.jinja"))
    template = read_json(files, "tokenizer_config.json", source).get("chat_template")
    if template is None:
        template = read_json(files, "chat_template.json", source).get("chat_template")
    return default_template(template)
