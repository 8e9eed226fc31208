"""Loads saved models with transformers 4 and prints what it reads, as JSON; runs in the environment of transformers 4.

`python read_in_transformers4.py TEXTS.json FOLDER...`: for each folder the tokenizer's ids and rendered chat of the
texts, the logits of the first text, and the tokens at which a reply ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def read(folder: str, texts: list[str]) -> dict[str, Any]:
    """What this version of transformers makes of one saved model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto", attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(**tokenizer(texts[0], return_tensors="pt")).logits[0]
    ends = model.generation_config.eos_token_id
    messages = [{"role": "user", "content": texts[0]}]
    return {
        "dtype": str(model.dtype),
        "ids": [tokenizer(text)["input_ids"] for text in texts],
        "decoded": [tokenizer.decode(tokenizer(text)["input_ids"]) for text in texts],
        "special": sorted(tokenizer.all_special_tokens),
        "chat": tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        "ends": ends if isinstance(ends, list) else [ends],
        "logits": logits.tolist(),
    }


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    listed = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    models = {folder: read(folder, listed) for folder in sys.argv[2:]}
    json.dump({"transformers": transformers.__version__, "models": models}, sys.stdout)
