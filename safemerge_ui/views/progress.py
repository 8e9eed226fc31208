"""The progress of a run: its phases with the time left, its status for the head of the page, and how it ended."""

from __future__ import annotations

from core.contracts.events import Phase
from core.runs.view import RunView
from safemerge_ui.views.markup import badge, duration, empty, notice, text
from safemerge_ui.views.names import (
    STATUS_TITLES,
    STATUS_TONES,
    is_safety_aware,
    optimizer_title,
    phases,
    search_facts,
)

FEWEST_STEPS = 3
"""Steps of a phase after which its pace tells the time left."""
QUIET_S = 60.0
"""After how long without an event the page says so: the worker may be stopped, or a step takes long."""

QUIET_ADVICE = (
    "a step takes long, or the worker hangs or was paused. Stop it, and resume the run on the Runs tab: "
    "it continues from its last step"
)


def run_progress(view: RunView, run_id: str, now: float) -> str:
    """Return everything about a run's progress: line, phases and ending."""
    return run_line(view, run_id, now) + stepper(view) + ending(view)


def seconds_left(view: RunView) -> float | None:
    """Return the seconds left in the current phase as its worker says, else by its pace so far; None if unknown."""
    progress = view.progress
    if progress is None or progress.phase != view.phase:
        return None
    if progress.seconds_left is not None:
        return progress.seconds_left
    if view.phase_started_at is None or view.updated_at is None or progress.done < FEWEST_STEPS:
        return None
    return (view.updated_at - view.phase_started_at) * max(0, progress.total - progress.done) / progress.done


def run_line(view: RunView, run_id: str, now: float) -> str:
    """Return status, name, elapsed time at `now`, and settings of a run."""
    status = badge(STATUS_TITLES[view.status], STATUS_TONES[view.status])
    elapsed = f"<span>{duration(view.elapsed_s(now))}</span>" if view.started_at is not None else ""
    elapsed += f"<span>no event for {duration(quiet)}: {QUIET_ADVICE}</span>" if (quiet := quiet_s(view, now)) else ""
    facts = "".join(f"<span>{text(fact)}</span>" for fact in spec_facts(view.spec))
    return f'<div class="sm-runline">{status}<b class="sm-mono">{text(run_id)}</b>{elapsed}{facts}</div>'


def quiet_s(view: RunView, now: float) -> float:
    """Return the seconds since the last event of a run that goes on; 0 while they are few."""
    quiet = 0.0 if view.over or view.updated_at is None else now - view.updated_at
    return quiet if quiet >= QUIET_S else 0.0


def run_pill(view: RunView, run_id: str) -> str:
    """Return a run's status for the head of the page."""
    progress = view.progress
    label = STATUS_TITLES[view.status] if view.over else _label(view)
    share = f" {progress.done}/{progress.total}" if progress and not view.over and progress.phase == view.phase else ""
    tone = STATUS_TONES[view.status]
    return f'<span class="sm-pill sm-{tone}" title="{text(run_id)}"><i></i>{text(label)}{share}</span>'


def run_notice(message: str) -> str:
    """Return what stands in place of the status if the run cannot be read."""
    return f'<span class="sm-pill sm-bad"><i></i>{text(message)}</span>'


def spec_facts(spec: dict[str, object]) -> list[str]:
    """Return the settings that distinguish runs; empty for a run without a readable spec."""
    if isinstance(models := spec.get("models"), list):
        return ["Comparison", " · ".join(str(compared.get("model", "")) for compared in models)]
    pool, search, data = (spec.get(key) or {} for key in ("pool", "search", "data"))
    if not isinstance(pool, dict) or not isinstance(search, dict) or not isinstance(data, dict) or not pool:
        return []
    experts = [str(expert.get("model", "")) for expert in pool.get("experts", [])]
    names = " + ".join([str(pool.get("base", "")), *experts])
    mode = "safety-aware" if is_safety_aware(search) else "domain data only"
    facts = [names, *search_facts(search), mode]
    sizes = [str(data.get(name, {}).get("k", "")) for name in ("safety", "domain")]
    return [*facts, f"K {' + '.join(sizes)}"]


def stepper(view: RunView) -> str:
    """Return the phases in order: done, current with its share, or still to come."""
    if view.status == "waiting" and view.phase is None:
        return ""
    current = _current_index(view)
    steps = "".join(_step(view, index, label, current) for index, (_, label) in enumerate(phases(view)))
    return f'<ol class="sm-steps">{steps}</ol>{_detail(view)}'


def ending(view: RunView) -> str:
    """Return why a run failed or stopped and what to do next, its warnings, and searches that ended early."""
    parts = []
    if view.status == "failed":
        parts.append(notice(view.message or "The run failed.", view.hint))
    if view.status == "cancelled":
        hint = "Its results so far are kept. Resume it here or on the Runs tab."
        parts.append(notice(view.message or "The run was stopped.", hint, "warn"))
    parts += [notice(warning.message, warning.hint, "warn") for warning in view.warnings]
    parts += [notice(early_end(message), "", "plain") for message in view.early_ends]
    return "".join(parts)


def early_end(message: str) -> str:
    """Return a search's message with its title instead of its key."""
    name, _, rest = message.partition(" ")
    return f"{optimizer_title(name)} {rest}"


def no_run() -> str:
    """Return what the Merge tab says without a run."""
    return empty("No run on this page yet.", "Launch a merge, or open a run from the Runs tab.")


def _current_index(view: RunView) -> int:
    if view.status == "finished":
        return len(phases(view))
    order: list[Phase] = [phase for phase, _ in phases(view)]
    if view.phase is None:
        return 0
    return order.index(view.phase) if view.phase in order else len(order) - 1


def _step(view: RunView, index: int, label: str, current: int) -> str:
    state = "done" if index < current else "now" if index == current else "next"
    share = _share(view) if state == "now" else 1.0 if state == "done" else 0.0
    if state == "now" and view.status in ("failed", "cancelled"):
        state = "stopped"
    mark = ' aria-current="step"' if state == "now" else ""
    bar = f'<span class="sm-bar"><i style="width:{100 * share:.0f}%"></i></span>'
    return f'<li class="sm-step sm-step-{state}"{mark}>{bar}<span>{label}</span></li>'


def _share(view: RunView) -> float:
    progress = view.progress
    if progress is None or progress.phase != view.phase or progress.total <= 0:
        return 0.04
    return max(0.04, min(1.0, progress.done / progress.total))


def _label(view: RunView) -> str:
    """The title of the current phase; phases without a title belong to the last one."""
    return dict(phases(view)).get(view.phase, "Save") if view.phase else "Start"


def _detail(view: RunView) -> str:
    if view.over or view.phase is None:
        return ""
    progress = view.progress
    if progress is None or progress.phase != view.phase:
        return f'<p class="sm-detail">{text(_label(view))}: starting</p>'
    seconds = seconds_left(view)
    left = "" if seconds is None else f" · about {duration(seconds)} left in this phase"
    message = f" · {text(progress.message)}" if progress.message else ""
    message += f" · {progress.tokens_scored:,} tokens scored" if progress.tokens_scored else ""
    label = text(_label(view))
    return f'<p class="sm-detail"><b>{label}</b> {progress.done} of {progress.total}{message}{left}</p>'
