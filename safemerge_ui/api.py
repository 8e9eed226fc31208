"""The public interface of the app: actions for scripts (`gradio_client`) and, where they only read, for MCP clients.

Everything else that the page does is private. The functions here have typed parameters and documented results; their
names, parameters and keys are a contract (docs/reference/api.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api as add_endpoint
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from core.contracts.comparison_spec import AnySpec, ComparisonSpec, any_spec_from_dict
from core.contracts.results import Role
from core.contracts.spec_files import parse_mapping
from core.errors import ModelError, RunError
from core.evaluation.lineage import read_lineage
from core.guards.guard_names import PHRASES
from core.models.references import parse_reference
from core.runs.history import stop_run
from core.runs.summaries import RunSummary
from safemerge_ui import launching
from safemerge_ui.access import refuse_local_paths, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind_endpoint
from safemerge_ui.comparison_form import audit_spec, comparison_spec, lines_of

DEMO_PROMPTS = "assets/demo/prompts/test_harmful.jsonl"
DEMO_BENIGN = "assets/demo/prompts/test_benign.jsonl"
LONGEST_REPLY_TOKENS = 64

Json = dict[str, Any]


def wire(context: AppContext) -> list[Callable[..., Any]]:
    """Add the public functions to the app, and return them; call it within `gr.Blocks`.

    Call it before the page is wired: a handler of the page that has the same name then gets another one.
    """
    endpoints = [bind_endpoint(function, context) for function in (*READING, *ACTING)]
    for endpoint in endpoints:
        add_endpoint(endpoint, api_name=endpoint.__name__)
        if endpoint.__name__ not in TOOLS:
            endpoint._mcp_type = "none"  # type: ignore[attr-defined]  # gradio lists those of type "tool", the default
    return endpoints


def list_runs(context: AppContext, limit: int = 50) -> list[Json]:
    """List the runs of this machine, newest first.

    Args:
        limit: Most runs to return.

    Returns:
        Runs with run_id, kind, status, started_at, elapsed_s, method, pool, best_objective, message and merged.
    """
    return [_summary(run) for run in context.watch.list_runs()[: max(0, limit)]]


def run_status(context: AppContext, run_id: str) -> Json:
    """Say how far a run is.

    Args:
        run_id: Id of the run.

    Returns:
        Mapping with run_id, status, phase, done, total, seconds_left, elapsed_s, candidates, message and hint.
    """
    view = context.watch.look(run_id).view
    progress = view.progress
    return {
        "run_id": run_id,
        "status": view.status,
        "phase": view.phase,
        "done": progress.done if progress else None,
        "total": progress.total if progress else None,
        "seconds_left": progress.seconds_left if progress else None,
        "elapsed_s": view.elapsed_s(),
        "candidates": len(view.candidates),
        "message": view.message,
        "hint": view.hint,
    }


def run_result(context: AppContext, run_id: str) -> Json:
    """Return the measurements of a run: those of result.json, or those so far if the run has not finished.

    Args:
        run_id: Id of the run.

    Returns:
        Mapping with run_id, status and models; of a finished run also spec, seconds, peak_memory_bytes and searches.
    """
    view = context.watch.look(run_id).view
    facts = {"run_id": run_id, "status": view.status}
    if view.result is not None:
        return {**facts, **view.result.to_json_dict()}
    return {**facts, "models": [model.model_dump(mode="json") for model in view.models]}


def preflight(context: AppContext, spec: str) -> Json:
    """Check a run before it starts: models, files, memory and time. Downloads no weights.

    Args:
        spec: YAML of a merge or of a comparison.

    Returns:
        Mapping with ok (whether the run may start) and rows, each with model, check, status, detail and hint.
    """
    from core.preflight.check_rows import blocking_rows
    from core.preflight.comparison_check import examine_comparison
    from core.preflight.run_check import examine

    wanted = _spec(context, spec)
    settings = context.settings
    checked = examine_comparison(wanted, settings) if isinstance(wanted, ComparisonSpec) else examine(wanted, settings)
    rows = list(checked.rows)
    return {"ok": not blocking_rows(rows), "rows": [row.model_dump(mode="json") for row in rows]}


def download_report(context: AppContext, run_id: str) -> FileData:
    """Write the report of a run and return it as an HTML file.

    Args:
        run_id: Id of the run.

    Returns:
        The file report.html.
    """
    from core.report.write_report import write_report

    report = write_report(context.watch.folder(run_id))
    return FileData(path=save_file_to_cache(report.html, get_upload_folder()), orig_name=report.html.name)


def launch(context: AppContext, spec: str, profile: gr.OAuthProfile | None) -> str:
    """Start a run.

    Args:
        spec: YAML of a merge or of a comparison.

    Returns:
        Id of the run.
    """
    require_starter(context.settings, profile)
    return launching.start(context, _spec(context, spec))


def stop(context: AppContext, run_id: str, profile: gr.OAuthProfile | None) -> str:
    """Stop a run; its files stay, and it can be resumed. Returns when the run is over.

    Args:
        run_id: Id of the run.

    Returns:
        The status of the run: cancelled, finished or failed.
    """
    require_starter(context.settings, profile)
    return stop_run(context.watch.folder(run_id)).status


def resume(context: AppContext, run_id: str, profile: gr.OAuthProfile | None) -> str:
    """Continue a run that failed, was stopped or was killed.

    Args:
        run_id: Id of the run.

    Returns:
        Id of the run.
    """
    require_starter(context.settings, profile)
    folder = context.watch.folder(run_id)
    spec = folder.read_spec()
    refuse_local_paths(spec, context.settings)
    launching.resume(context, folder)
    return run_id


def evaluate(
    context: AppContext,
    models: list[str],
    profile: gr.OAuthProfile | None,
    prompts: str = DEMO_PROMPTS,
    benign: str = DEMO_BENIGN,
    suite: str = "",
    guard: str = PHRASES,
    limit: int = 0,
) -> str:
    """Start a run that measures models side by side.

    Args:
        models: References of the models.
        prompts: Unsafe prompts, which measure alignment; empty = not measured.
        benign: Harmless look-alikes, which measure over-refusal; empty = not measured.
        suite: Accuracy suite; empty = not measured.
        guard: Guard that judges the replies.
        limit: Most prompts and questions; 0 = all.

    Returns:
        Id of the run.
    """
    require_starter(context.settings, profile)
    named: list[tuple[str, Role]] = [(model, "model") for model in lines_of("\n".join(models))]
    return launching.start(context, comparison_spec(named, _form(prompts, benign, suite, guard, limit)))


def audit(
    context: AppContext,
    merge: str,
    profile: gr.OAuthProfile | None,
    parents: list[str] | None = None,
    prompts: str = DEMO_PROMPTS,
    benign: str = DEMO_BENIGN,
    suite: str = "",
    guard: str = PHRASES,
    limit: int = 0,
) -> str:
    """Start a run that measures a published merge and its parents.

    Args:
        merge: Reference of the merge.
        parents: References of its parents; without them its own files name the parents.
        prompts: Unsafe prompts, which measure alignment; empty = not measured.
        benign: Harmless look-alikes, which measure over-refusal; empty = not measured.
        suite: Accuracy suite; empty = not measured.
        guard: Guard that judges the replies.
        limit: Most prompts and questions; 0 = all.

    Returns:
        Id of the run.
    """
    require_starter(context.settings, profile)
    found = parents or list(read_lineage(merge, context.settings).parents)
    return launching.start(context, audit_spec(merge, found, _form(prompts, benign, suite, guard, limit)))


def chat(context: AppContext, model: str, prompt: str, profile: gr.OAuthProfile | None, guard: str = PHRASES) -> Json:
    """Ask a model one question; each call is a new conversation.

    Args:
        model: Reference of the model.
        prompt: The question.
        guard: Guard that judges the reply; empty = none.

    Returns:
        Mapping with reply, and verdict with refusal, safe, degenerate, category and guard (null without a guard).
    """
    require_starter(context.settings, profile)
    if not prompt.strip():
        raise ModelError("The prompt is empty.", "Write a question.", code="nothing-to-ask")
    reply = context.model_cache.reply(parse_reference(model, context.settings), prompt)
    if not guard.strip():
        return {"reply": reply, "verdict": None}
    if guard != PHRASES and (busy := context.watch.busy_run()):
        raise RunError(f"{guard} is unavailable while the run {busy} is at work.", "Use phrases.", code="machine-busy")
    verdict = context.model_cache.judge(guard, prompt, reply)
    keys = ("refusal", "safe", "degenerate", "category")
    return {"reply": reply, "verdict": {**{key: getattr(verdict, key) for key in keys}, "guard": guard}}


READING: tuple[Callable[..., Any], ...] = (list_runs, run_status, run_result, preflight, download_report)
"""Functions that change nothing; they are MCP tools."""
ACTING: tuple[Callable[..., Any], ...] = (launch, stop, resume, evaluate, audit, chat)
"""Functions that start or end work, or load models."""
TOOLS = frozenset(function.__name__ for function in READING)
"""Names of the MCP tools."""


def _summary(run: RunSummary) -> Json:
    keys = ("run_id", "kind", "status", "started_at", "elapsed_s", "method", "best_objective", "message")
    merged = run.merged.model_dump(mode="json") if run.merged else None
    return {**{key: getattr(run, key) for key in keys}, "pool": list(run.pool), "merged": merged}


def _spec(context: AppContext, text: str) -> AnySpec:
    spec = any_spec_from_dict(parse_mapping(text))
    refuse_local_paths(spec, context.settings)
    return spec


def _form(prompts: str, benign: str, suite: str, guard: str, limit: int) -> Json:
    """The values of `comparison_form.FIELDS`."""
    return {
        "prompts": prompts,
        "benign": benign,
        "suite": suite,
        "tasks": "",
        "guard": guard,
        "limit": limit or None,
        "reply_tokens": LONGEST_REPLY_TOKENS,
    }
