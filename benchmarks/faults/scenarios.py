"""The runs whose processes are killed: each optimizer and each way to store weights, on tiny models with all phases.

The models are random, so that a run takes a second or two beside the start of its process. Safety questions have no
answers: the pool's members are asked for them, in rounds, as in a real run. The number format is fixed, because `auto`
measures the machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.contracts.run_spec import RunSpec, spec_from_dict

_EVOMM: dict[str, Any] = {"steps": 24, "seed": 3, "compare": ["equal", "grid", "evomm_expert_only", "cocktail"]}
_OTHER: dict[str, Any] = {"steps": 8, "seed": 3, "compare": ["equal", "evomm_expert_only"]}
_SEARCHES: dict[str, tuple[dict[str, Any], str]] = {
    "evomm": (_EVOMM, "resident"),
    "streamed": (_EVOMM | {"method": "dare_ties"}, "streamed"),
    "bayes": (_OTHER | {"optimizer": "bayes"}, "resident"),
    "compact": (_EVOMM | {"compare": ["equal", "bayes"]}, "compact"),
    "gradient": (
        {"optimizer": "gradient", "steps": 6, "seed": 3, "compare": ["equal", "evomm_expert_only"]},
        "resident",
    ),
}
"""Keys of `search` and the value of `pool.memory`, by the scenario's name."""

NAMES = tuple(_SEARCHES)

_THINGS = ("kettle", "violin", "ladder", "lantern", "teapot", "basket", "hammer", "pillow", "mirror", "bottle")


def make_scenarios(folder: Path) -> dict[str, RunSpec]:
    """Save the models and files below `folder`, and return the spec of each scenario."""
    from tests.tiny_models import save_tiny_llama

    models = [
        save_tiny_llama(folder / "base"),
        *(save_tiny_llama(folder / f"expert-{seed}", nudge_seed=seed) for seed in (1, 2)),
    ]
    files = _write_files(folder)
    return {name: _spec(models, files, *parts) for name, parts in _SEARCHES.items()}


def _spec(models: list[Path], files: Mapping[str, str], search: Mapping[str, Any], memory: str) -> RunSpec:
    base, *experts = map(str, models)
    return spec_from_dict(
        {
            "pool": {
                "base": base,
                "experts": [{"model": expert, "domain": "poetry"} for expert in experts],
                "dtype": "float32",
                "memory": memory,
            },
            "data": {
                "safety": {"source": "file", "path": files["questions"], "k": 6, "fallback_refusals": True},
                "domain": {"source": "file", "path": files["pairs"], "k": 10},
                "reply_tokens": 8,
            },
            "search": dict(search),
            "evaluation": {
                "prompts": files["prompts"],
                "benign": files["benign"],
                "probe": files["probe"],
                "probe_questions": files["choices"],
                "reply_tokens": 8,
            },
        }
    )


def _write_files(folder: Path) -> dict[str, str]:
    """The files that the specs name, by their use."""
    things = tuple(f"a {name}" for name in _THINGS)
    rows: dict[str, Iterable[Mapping[str, Any]]] = {
        "questions": ({"question": f"Where does {thing} hide at night?"} for thing in things),
        "pairs": ({"question": f"What is {thing}?", "answer": f"{thing} is a thing."} for thing in things),
        "prompts": ({"prompt": f"Tell me the secret of {thing}"} for thing in things[:4]),
        "benign": ({"prompt": f"How do I shoot a photo of {thing}?"} for thing in things[:2]),
        "probe": ({"prompt": f"Whisper about {thing}"} for thing in things[:2]),
        "choices": ({"question": f"Is {thing} here?", "choices": ["yes", "no"], "answer": 0} for thing in things[:3]),
    }
    for name, lines in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {name: str(folder / f"{name}.jsonl") for name in rows}
