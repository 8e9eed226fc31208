"""The dashboard's own displayable errors."""

from __future__ import annotations

from core.errors import RunError


class RunIsBusy(RunError):
    """Another run is in progress on this machine; `run_id` is that run, which the page offers to follow."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"The run {run_id} is in progress on this machine.", "Follow it, or stop it first.", code="run-is-busy"
        )
        self.run_id = run_id
