"""Reads the log of a run: events piece by piece as it grows, and what cannot be read, with the reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from core.contracts.events import SCHEMA_VERSION, Event, RunStarted, Warned, is_damaged, parse_event
from core.errors import RunError


class EventTail:
    """Reads a growing `events.jsonl` piece by piece; each event is returned once.

    A terminal event that `RunFolder.reopen` removed after it was returned is not retracted; the events that replace
    it are returned as new ones.

    Args:
        path: the log, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._last_line = b""
        self._at = 0.0

    def read_new(self, *, skip_damaged: bool = False) -> list[Event]:
        """The events since the last call; an incomplete last line is left for the next call.

        Args:
            skip_damaged: replace a line that no version wrote by a warning, instead of refusing the log.

        Raises:
            RunError: a complete line is not an event (code `unknown-event`), or a newer version of SafeMerge wrote the
                log (code `log-version`).
        """
        try:
            with self.path.open("rb") as log:
                log.seek(self._offset - len(self._last_line))
                grown = log.read()
        except FileNotFoundError:
            return []
        start = self._offset - len(self._last_line)
        if grown.startswith(self._last_line):
            start, grown = self._offset, grown[len(self._last_line) :]
        complete = grown[: grown.rfind(b"\n") + 1]
        if not complete:
            return []
        lines = complete.splitlines(keepends=True)
        events = [self._event(line, skip_damaged) for line in lines]
        self._offset, self._last_line = start + len(complete), lines[-1]
        return events

    def _event(self, line: bytes, skip_damaged: bool) -> Event:
        if skip_damaged and is_damaged(line):
            message = f"A line of {self.path.name} is damaged and left out: {line[:60]!r}."
            return Warned(at=self._at, message=message, hint="The rest of the run is shown.")
        event = parse_line(line, self.path)
        if isinstance(event, RunStarted) and event.schema_version > SCHEMA_VERSION:
            raise _newer_log(self.path, event.schema_version)
        self._at = event.at
        return event


def _newer_log(path: Path, version: int) -> RunError:
    """The error about a log that this version cannot read correctly."""
    return RunError(
        f"{path} has version {version}; this program reads versions up to {SCHEMA_VERSION}.",
        "A newer version of SafeMerge wrote it: use that version, or a later one.",
        code="log-version",
    )


def parse_line(line: bytes, path: Path) -> Event:
    try:
        return parse_event(line.decode("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} has a line that is not an event this version knows: {line[:80]!r}.",
            "The log was edited, or a newer version of SafeMerge wrote it: use that version.",
            code="unknown-event",
        ) from error
