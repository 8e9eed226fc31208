"""What can be known of a model before its weights are downloaded: configuration, tensor shapes, tokenizer, licence.

Everything a merge can fail on later is here, so that preflight can say so in seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from core.errors import ModelError
from core.models.demo_base import base_folder, is_prepared
from core.models.files import FolderFiles, ModelFiles, TensorFacts, WeightFacts, open_files, read_json, read_weights
from core.models.references import DEMO_ADAPTERS, DEMO_BASE, ModelReference
from core.settings import ASSETS, Settings

DEMO_FACTS = ASSETS / "demo" / "base"
DEMO_LICENSE = "apache-2.0"
_WEIGHTS_RECORD = "facts.json"


class TokenizerFacts(NamedTuple):
    """How a tokenizer numbers its tokens.

    Attributes:
        sha256: over all (id, token) pairs but the added ones; None when the files do not tell.
        size: number of tokens, added ones included; 0 when unknown.
        added: id -> text of the added tokens (special marks, mostly).
        tokens: id -> text of the others; None when the files do not tell.
    """

    sha256: str | None
    size: int
    added: dict[int, str]
    tokens: dict[int, str] | None = None


@dataclass(frozen=True)
class AdapterMetadata:
    """A LoRA adapter: its `adapter_config.json` and tensors."""

    config: dict[str, Any]
    tensors: dict[str, TensorFacts]
    size_bytes: int


@dataclass(frozen=True)
class ModelMetadata:
    """A model as its small files describe it.

    Attributes:
        config: `config.json`.
        tensors: by name, as saved.
        chat_template: None when it has none.
        size_bytes: of the weight files, an adapter's included.
        cached: the weights are on this machine already.
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

    @property
    def architecture(self) -> str:
        """Class name of the model, "" when the configuration names none."""
        return str((self.config.get("architectures") or [""])[0])

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def parameters(self) -> int:
        """Number of weights, of tied tensors once."""
        return sum(math.prod(tensor.shape) for tensor in self.own_tensors.values())

    @property
    def own_tensors(self) -> dict[str, TensorFacts]:
        """`tensors` without an output layer that is tied to the embedding and only saved a second time."""
        tied = bool(self.config.get("tie_word_embeddings"))
        return {name: facts for name, facts in self.tensors.items() if not (tied and name == "lm_head.weight")}

    @property
    def dtype(self) -> str:
        """Most common safetensors type of the tensors."""
        counts = Counter(tensor.dtype for tensor in self.tensors.values())
        return counts.most_common(1)[0][0] if counts else ""


def read_metadata(ref: ModelReference, settings: Settings) -> ModelMetadata:
    """Read a model's metadata; downloads small text files at most.

    Raises:
        ModelError: not found, gated, unreachable, without `config.json`, without safetensors weights, or an adapter
            that was not named together with its base.
    """
    if ref.kind == "demo":
        return _demo_metadata(ref, settings)
    metadata = _from_files(ref, open_files(ref.base, settings))
    if ref.adapter is None:
        return metadata
    return _with_adapter(metadata, ref, open_files(ref.adapter, settings))


def _from_files(ref: ModelReference, files: ModelFiles) -> ModelMetadata:
    source = str(ref.base)
    if "config.json" not in files.sizes:
        raise _not_a_model(files, source)
    weights = read_weights(files, "model", source)
    return _assemble(ref, files, weights, _read_tokenizer(files, source), cached=files.cached)


def _assemble(
    ref: ModelReference, files: ModelFiles, weights: WeightFacts, tokenizer: TokenizerFacts, *, cached: bool
) -> ModelMetadata:
    source = str(ref.base)
    return ModelMetadata(
        ref=ref,
        config=read_json(files, "config.json", source),
        tensors=weights.tensors,
        tokenizer=tokenizer,
        chat_template=_read_chat_template(files, source),
        license=files.license,
        gated=files.gated,
        size_bytes=weights.size_bytes,
        cached=cached,
    )


def _with_adapter(metadata: ModelMetadata, ref: ModelReference, files: ModelFiles) -> ModelMetadata:
    source = str(ref.adapter or ref)
    config = read_json(files, "adapter_config.json", source)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{source} is not a LoRA adapter.", "Write base+lora with a PEFT adapter after the '+'.")
    weights = read_weights(files, "adapter_model", source)
    return ModelMetadata(
        ref=ref,
        config=metadata.config,
        tensors=metadata.tensors,
        tokenizer=metadata.tokenizer,
        chat_template=metadata.chat_template,
        license=metadata.license,
        gated=metadata.gated or files.gated,
        size_bytes=metadata.size_bytes + weights.size_bytes,
        cached=metadata.cached and files.cached,
        adapter=AdapterMetadata(config, weights.tensors, weights.size_bytes),
    )


def _demo_metadata(ref: ModelReference, settings: Settings) -> ModelMetadata:
    """From the prepared base when there is one, else from the facts kept with the project."""
    if is_prepared(settings):
        metadata = _from_files(ref, FolderFiles(base_folder(settings), DEMO_LICENSE))
    else:
        weights, tokenizer = read_recorded_facts()
        metadata = _assemble(ref, FolderFiles(DEMO_FACTS, DEMO_LICENSE), weights, tokenizer, cached=False)
    if ref.source != DEMO_BASE:
        adapter = ModelReference("folder", str(DEMO_ADAPTERS / ref.source))
        return _with_adapter(metadata, ref, FolderFiles(adapter.folder))
    return metadata if ref.adapter is None else _with_adapter(metadata, ref, open_files(ref.adapter, settings))


def read_recorded_facts() -> tuple[WeightFacts, TokenizerFacts]:
    """Weights and tokenizer of the demo's base as recorded with the project; `record_facts` writes them."""
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
        return ModelError(f"{source} is a LoRA adapter, not a whole model.", f"Write {base}+{source}.")
    if any(name.endswith(".gguf") for name in files.sizes):
        return ModelError(f"{source} holds GGUF files only.", "Use the original safetensors model.")
    return ModelError(f"{source} has no config.json.", "Name a folder or repository saved by transformers.")


def _read_tokenizer(files: ModelFiles, source: str) -> TokenizerFacts:
    """Facts of `tokenizer.json`; of a SentencePiece model alone, only that it is the same file."""
    data = read_json(files, "tokenizer.json", source)
    if data:
        added = {int(item["id"]): str(item["content"]) for item in data.get("added_tokens", ())}
        return tokenizer_facts(data.get("model", {}).get("vocab", {}), added)
    data = read_json(files, "vocab.json", source)
    if data:
        extra = read_json(files, "added_tokens.json", source)
        return tokenizer_facts(data, {int(number): text for text, number in extra.items()})
    return TokenizerFacts(None, 0, {})


def tokenizer_facts(vocabulary: dict[str, int] | list[Any], added: dict[int, str]) -> TokenizerFacts:
    """Facts of a vocabulary: token -> id (BPE, WordPiece), or a list of [token, score] (Unigram)."""
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((item[0], i) for i, item in enumerate(vocabulary))
    tokens = {int(number): str(token) for token, number in pairs}
    lines = (f"{number} {json.dumps(tokens[number])}\n" for number in sorted(tokens) if number not in added)
    digest = hashlib.sha256("".join(lines).encode())
    return TokenizerFacts(digest.hexdigest(), len(tokens.keys() | added.keys()), added, tokens)


def _read_chat_template(files: ModelFiles, source: str) -> str | None:
    if "chat_template.jinja" in files.sizes:
        return files.text("chat_template.jinja")
    template = read_json(files, "tokenizer_config.json", source).get("chat_template")
    if template is None:
        template = read_json(files, "chat_template.json", source).get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
