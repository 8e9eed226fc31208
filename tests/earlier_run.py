"""The folder of a run as an earlier version wrote it: a search that was removed, racing, and estimated losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.contracts.events import CandidateScored, Event, Finished, parse_event
from core.runs.folder import RunFolder
from tests.ui.golden import golden_events, write_run

REMOVED = "evomm_surrogate"
ESTIMATED = (3, 4, 11)
"""Numbers of the candidates that were scored on a part of the pairs; their losses would win."""


def earlier_run(folder: Path, *, racing: bool = True, finished: bool = True) -> RunFolder:
    """The golden run with `evomm_surrogate` as its optimizer, and candidates that were raced."""
    lines = [_earlier(json.loads(event.model_dump_json()), racing) for event in golden_events()]
    events = [parse_event(json.dumps(line)) for line in lines]
    return RunFolder(write_run(folder, events if finished else _until_the_search(events)))


def _until_the_search(events: list[Event]) -> list[Event]:
    last = max(number for number, event in enumerate(events) if isinstance(event, CandidateScored))
    return [event for event in events[:last] if not isinstance(event, Finished)]


def _earlier(event: dict[str, Any], racing: bool) -> dict[str, Any]:
    for spec in (event.get("spec"), (event.get("result") or {}).get("spec")):
        if spec:
            spec["search"] |= {"optimizer": REMOVED, "racing": racing}
    for result in (event.get("result") or {}, *(event.get("result") or {}).get("models", ())):
        if result.get("name") == "evomm":
            result["name"] = REMOVED
    if event.get("search") == "evomm":
        event["search"] = REMOVED
    if racing and event["kind"] == "candidate_scored" and event["search"] == REMOVED:
        event |= {"samples": 24, "all_samples": 24}
        if event["candidate"] in ESTIMATED:
            event |= {"samples": 16, "objective": 0.0, "ce_safety": 0.0, "ce_expert": 0.0}
    return event
