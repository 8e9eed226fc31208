"""Refuses to resume a run whose search needs an optimizer or a key that this version lacks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from core.contracts.events import CandidateScored, Event, RunStarted
from core.contracts.removed import RACING, removed_parts
from core.contracts.spec_files import parse_mapping, read_spec_text
from core.errors import RunError


def refuse_removed_search(spec_path: Path, events: Iterable[Event]) -> None:
    """Refuse a run whose spec, as a file or in the log, or whose candidates need what was removed.

    Args:
        spec_path: the run's spec, which may be missing.
        events: the run's log.

    Raises:
        RunError: code `search-removed`.
    """
    specs = [parse_mapping(read_spec_text(spec_path))] if spec_path.exists() else []
    raced = False
    for event in events:
        if isinstance(event, RunStarted):
            specs.append(event.spec)
        raced |= isinstance(event, CandidateScored) and event.samples is not None
    removed = dict.fromkeys([*itertools.chain(*map(removed_parts, specs)), *[RACING] * raced])
    if removed:
        names = " and ".join(removed)
        raise RunError(
            f"The run {spec_path.parent.name} cannot be resumed: its search uses {names}, removed since.",
            "Resume it with the version that started it, or start a new run with optimizer bayes or gradient.",
            code="search-removed",
        )
