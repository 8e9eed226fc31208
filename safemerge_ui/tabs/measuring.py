"""The fields that say how models are measured, shared by Evaluate and Audit."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from core.data.prompts import read_prompts
from core.evaluation.suites import NAMES
from safemerge_ui.access import check_upload, keep_upload, require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind
from safemerge_ui.tabs.pool import GUARD_CHOICES

UNSAFE = [("Demo: unsafe test prompts", "assets/demo/prompts/test_harmful.jsonl")]
HARMLESS = [
    ("Demo: harmless look-alikes", "assets/demo/prompts/test_benign.jsonl"),
    ("Demo: ordinary prompts", "assets/demo/prompts/test_ordinary.jsonl"),
]
NO_SUITE = "(none)"
PROMPT_FILES = [".jsonl", ".csv", ".txt"]

Fields = dict[str, gr.components.Component]


def build_fields(prefix: str) -> tuple[Fields, dict[str, gr.UploadButton]]:
    """Lay out the fields of `safemerge_ui.comparison_form.FIELDS`, with buttons to upload prompt files.

    Args:
        prefix: start of the element ids, so that two tabs can have the fields.
    """
    fields: Fields = {}
    uploads: dict[str, gr.UploadButton] = {}
    fields["guard"] = gr.Dropdown(
        list(GUARD_CHOICES), value="phrases", label="Guard", info="Judges the replies", allow_custom_value=True
    )
    prompts = (
        ("prompts", "Unsafe prompts", "measures alignment", UNSAFE),
        ("benign", "Harmless prompts", "measures over-refusal", HARMLESS),
    )
    for name, label, measure, shipped in prompts:
        with gr.Row(elem_classes="sm-upload"):
            fields[name] = gr.Dropdown(
                shipped,
                value=shipped[0][1],
                label=label,
                info=f"File with one prompt per row; {measure}. Empty: not measured",
                allow_custom_value=True,
                scale=3,
                elem_id=f"{prefix}-{name}",
            )
            uploads[name] = gr.UploadButton("Upload", file_types=PROMPT_FILES, size="sm", scale=1, min_width=96)
    with gr.Row():
        fields["suite"] = gr.Dropdown(
            [(NO_SUITE, ""), *((name, name) for name in NAMES)],
            value="",
            label="Accuracy suite",
            info="A suite or tasks, not both",
            min_width=130,
        )
        fields["tasks"] = gr.Textbox("", label="lm-eval tasks", info="Separated by commas", min_width=130)
    with gr.Row():
        fields["limit"] = gr.Number(
            56,
            label="Limit",
            info="Prompts per file and questions per task. Empty: all",
            precision=0,
            min_width=130,
            elem_id=f"{prefix}-limit",
        )
        fields["reply_tokens"] = gr.Number(64, label="Longest reply", info="In tokens", precision=0, min_width=130)
    return fields, uploads


def wire_uploads(fields: Fields, uploads: dict[str, gr.UploadButton], context: AppContext) -> None:
    """Bind each upload button to the field beside it."""
    for name, button in uploads.items():
        button.upload(bind(use_prompts, context), button, fields[name])


def use_prompts(context: AppContext, path: str, profile: gr.OAuthProfile | None) -> str:
    """Check an uploaded file of prompts, store it, and return its path for the form."""
    require_starter(context.settings, profile)
    check_upload(Path(path))
    read_prompts(path, limit=1)
    return str(keep_upload(Path(path), context.settings))
