"""The measurement part of the run form, to `evaluation` of a spec and back; `safemerge_ui.form` has the other parts.

Each field is named like its key, with the prefix `eval_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.contracts.run_spec import EvaluationSpec
from safemerge_ui.fields import listed, optional, optional_whole, shown, whole

CHAT_TEMPLATE: dict[str, bool | None] = {"suite": None, "on": True, "off": False}
"""Choices of the field for the chat template, with their value in the spec."""

_TEXTS = (
    "prompts",
    "benign",
    "probe",
    "probe_benign",
    "prompt_column",
    "category_column",
    "probe_questions",
    "suite",
    "include_path",
)
_OPTIONAL_NUMBERS = ("limit", "num_fewshot")
_SWITCHES = ("fluency", "leave_one_out")


def read_evaluation(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form's evaluation settings by the spec's keys."""
    return {
        **{name: optional(form, f"eval_{name}") for name in _TEXTS},
        **{name: optional_whole(form, f"eval_{name}") for name in _OPTIONAL_NUMBERS},
        "reply_tokens": whole(form["eval_reply_tokens"]),
        **{name: form[f"eval_{name}"] for name in _SWITCHES},
        "tasks": listed(form["eval_tasks"]),
        "chat_template": CHAT_TEMPLATE.get(str(form["eval_chat_template"]), form["eval_chat_template"]),
    }


def evaluation_form(spec: EvaluationSpec) -> dict[str, Any]:
    """Return the fields that read back as `spec`."""
    chosen = next(name for name, value in CHAT_TEMPLATE.items() if value is spec.chat_template)
    return {
        **{f"eval_{name}": getattr(spec, name) or "" for name in _TEXTS},
        **{f"eval_{name}": shown(getattr(spec, name)) for name in _OPTIONAL_NUMBERS},
        **{f"eval_{name}": getattr(spec, name) for name in ("reply_tokens", *_SWITCHES)},
        "eval_tasks": ", ".join(spec.tasks),
        "eval_chat_template": chosen,
    }
