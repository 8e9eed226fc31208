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


class NoMergesHere(RunError):
    """The machine cannot run merges: ZeroGPU lends a GPU for single calls, and ends what runs longer."""

    def __init__(self) -> None:
        super().__init__(
            "This Space does not run merges: it borrows a GPU for minutes, and a merge takes longer.",
            "Duplicate the Space and choose a GPU in its settings, or run the dashboard on your own machine. Chat, "
            "Evaluate and Audit work here for small models.",
            code="no-merges-here",
        )
