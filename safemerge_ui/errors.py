"""The dashboard's own addition to the family of displayable errors."""

from __future__ import annotations

from core.errors import RunError


class RunIsBusy(RunError):
    """Another run is at work; `run_id` is the one that the page can follow instead."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"The run {run_id} is at work on this machine.", "Follow it, or stop it first.")
        self.run_id = run_id
