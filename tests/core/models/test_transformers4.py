"""A saved merge computes the same in transformers 4, in its own environment (`make test-transformers4`)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaTokenizer

from core.merging.recipes import equal_weights
from core.models.export import export_model
from core.models.fingerprint import sha256_of_model
from tests.tiny_models import CHATML, CORPUS, VOCABULARY, tiny_tokenizer

ROOT = Path(__file__).parents[3]
PYTHON4 = ROOT / ".venv-transformers4" / "bin" / "python"
READER = Path(__file__).with_name("read_in_transformers4.py")
TOLERANCE = 1e-4
"""Largest absolute difference of a logit in float32; the logits are of the order of 1 to 10."""
EXTRA_END = 7

TEXTS = [
    "<|im_start|>user\nWhat is the capital of France? The capital of France is Paris.<|im_end|>\n" * 3,
    " Two  spaces, a don 't , and a <mark>special</mark> token .",
    "",
]
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 512}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.5, 2, 3], "long_factor": [2.0, 3, 4, 5]}
GEMMA3 = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 3e3},
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 64}}),
    "llama_yarn": ("llama", {"rope_parameters": YARN}),
    "mistral": ("mistral", {"sliding_window": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "gemma2": ("gemma2", {"tie_word_embeddings": True, "head_dim": 8, "sliding_window": 8}),
    "gemma3": (
        "gemma3_text",
        {"tie_word_embeddings": True, "head_dim": 8, "sliding_window": 8, "rope_parameters": GEMMA3}
        | {"layer_types": ["sliding_attention", "full_attention"]},
    ),
    "phi3": ("phi3", {"original_max_position_embeddings": 256, "rope_parameters": LONGROPE}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
}

pytestmark = [
    pytest.mark.transformers4,
    pytest.mark.skipif(not PYTHON4.exists(), reason="make test-transformers4 installs transformers 4"),
]


def tiny_model(kind: str, changes: dict[str, Any]) -> Any:
    size = {key: value for key, value in SIZE.items() if kind != "gpt2" or "token_id" in key or key == "vocab_size"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **{**size, **changes})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.generation_config.eos_token_id = [2, EXTRA_END]
    return model.eval()


def sentencepiece_tokenizer() -> Any:
    """A tokenizer of the Llama 2 kind that adds no beginning-of-sequence token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    marks = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [text.replace(" ", "▁") for text in CORPUS]
    tokenizer.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=marks, show_progress=False)
    )
    trained = json.loads(tokenizer.to_str())["model"]
    return LlamaTokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        add_bos_token=False,
        chat_template=CHATML,
    )


def tokenizer_for(name: str) -> Any:
    if name == "mistral":
        return sentencepiece_tokenizer()
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<mark>"]})
    return tokenizer


def read_here(folder: Path) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0]
    messages = [{"role": "user", "content": TEXTS[0]}]
    return {
        "dtype": str(model.dtype),
        "ids": [tokenizer(text)["input_ids"] for text in TEXTS],
        "decoded": [tokenizer.decode(tokenizer(text)["input_ids"]) for text in TEXTS],
        "special": sorted([*tokenizer.special_tokens_map.values(), *tokenizer.extra_special_tokens]),
        "chat": tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        "ends": model.generation_config.eos_token_id,
        "logits": logits,
    }


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    recipe = equal_weights("ties", "org/base", ("org/a",))
    for name, (kind, changes) in ARCHITECTURES.items():
        model, tokenizer = tiny_model(kind, changes), tokenizer_for(name)
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        export_model(model, tokenizer, recipe, "# A merge\n", root / name, scored_sha256=sha256_of_model(model))
    return {name: root / name for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def read_there(exports: dict[str, Path]) -> dict[str, Any]:
    texts = exports["llama"].parent / "texts.json"
    texts.write_text(json.dumps(TEXTS), encoding="utf-8")
    command = [str(PYTHON4), str(READER), str(texts), *map(str, exports.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    printed: dict[str, Any] = json.loads(done.stdout)
    assert printed["transformers"].startswith("4.5")
    return printed["models"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_merge_is_the_same_model_in_transformers_4(
    name: str, exports: dict[str, Path], read_there: dict[str, Any]
) -> None:
    here, there = read_here(exports[name]), read_there[str(exports[name])]
    assert there["ids"] == here["ids"] and there["decoded"] == here["decoded"]
    assert there["chat"] == here["chat"] and there["dtype"] == here["dtype"] == "torch.float32"
    assert set(there["special"]) == set(here["special"])
    assert there["ends"] == here["ends"] and EXTRA_END in there["ends"]
    logits = torch.tensor(there["logits"])
    assert here["logits"].std() > 0.1
    assert (logits - here["logits"]).abs().max() <= TOLERANCE
