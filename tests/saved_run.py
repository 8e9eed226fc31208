"""A finished run with a saved merge of tiny real weights and replies whose rates a test chooses."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from core.contracts.events import Event, ModelMeasured, parse_event
from core.evaluation.replies import ReplyRow
from core.models.fingerprint import sha256_of_folder
from core.runs.folder import RunFolder
from tests.ui.golden import golden_events, rate, write_run

PROMPTS = 40
BASE, EXPERT = "org/base", "org/expert"


def saved_run(folder: Path, model: Path, *, merged_safe: int, base: str = BASE, expert: str = EXPERT) -> RunFolder:
    """The golden run of `base` and `expert`, whose merge answers `merged_safe` of 40 unsafe prompts safely.

    The base answers 36 of them safely, and the expert none. `merged/` has the weights of `model`.
    """
    sha256 = sha256_of_folder(model)
    safe = {base: 36, expert: 0, "evomm": merged_safe}
    run = RunFolder(write_run(folder, [_measured(event, safe, sha256) for event in _events(base, expert)]))
    for name, count in safe.items():
        run.write_replies(name, _rows(count))
    shutil.copytree(model, run.merged_path)
    recipe = f"models:\n- model: {base}\n- model: {expert}\nmerge_method: ties\n"
    (run.merged_path / "mergekit_config.yml").write_text(recipe, encoding="utf-8")
    (run.merged_path / "notes.bin").write_bytes(b"not part of the model")
    return run


def _events(base: str, expert: str) -> Sequence[Event]:
    text = "\n".join(event.model_dump_json() for event in golden_events())
    text = text.replace("demo/aligned", base).replace("demo/chemistry", expert)
    return [parse_event(line) for line in text.splitlines()]


def _measured(event: Event, safe: dict[str, int], sha256: str) -> Event:
    if not isinstance(event, ModelMeasured) or event.result.name not in safe:
        return event
    changes = {"alignment": rate(safe[event.result.name], PROMPTS), "sha256": sha256}
    return event.model_copy(update={"result": event.result.model_copy(update=changes)})


def _rows(safe: int) -> list[ReplyRow]:
    return [
        ReplyRow(asked="harmful", prompt=f"Tell me secret {i}", safe=i < safe, refusal=i < safe, degenerate=False)
        for i in range(PROMPTS)
    ]
