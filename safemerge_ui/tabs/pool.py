"""Pool: which models are merged. Opens with the demo pool ready to launch; own models go into the same form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from core.contracts.number_formats import NumberFormat
from core.contracts.run_spec import parse_spec
from core.errors import SpecError
from safemerge_ui.access import refuse_local_paths
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import bind
from safemerge_ui.form import EXPERT_SLOTS, Form, expert_field, filled_slots, form_from_spec, spec_from_form
from safemerge_ui.views.names import MEMORY, VOCABULARIES
from safemerge_ui.views.pool_overview import pool_map
from safemerge_ui.views.preflight_table import preflight_table

GUARD_CHOICES = (
    "phrases",
    "Qwen/Qwen3Guard-Gen-0.6B",
    "Qwen/Qwen3Guard-Gen-8B",
    "meta-llama/Llama-Guard-3-8B",
    "meta-llama/Meta-Llama-Guard-2-8B",
    "allenai/wildguard",
    "ibm-granite/granite-guardian-3.0-2b",
    "google/shieldgemma-2b",
)
"""Published guards that a person may begin with; any other name may be typed in."""

INTRO = """<div class="sm-intro"><h1>Keep the refusals. Gain the skill.</h1>
<p>Merging a well-aligned model with a domain expert usually costs the refusals: one bad model spoils the bunch.
SafeMerge searches for merge weights on domain <em>and</em> safety data together.</p></div>"""


Fields = dict[str, gr.components.Component]


@dataclass(frozen=True)
class PoolTab:
    """Components of the tab that others need; `fields` is this tab's part of the form."""

    fields: Fields
    preset: gr.Radio
    notice: gr.HTML
    overview: gr.HTML
    launch: gr.Button
    check: gr.Button
    checks: gr.HTML
    slots: list[gr.Group]
    add_expert: gr.Button
    yaml: gr.Code
    write_yaml: gr.Button
    read_yaml: gr.Button
    upload_yaml: gr.UploadButton


def build(context: AppContext) -> PoolTab:
    """Lay out the tab with the default spec in its fields."""
    form = form_from_spec(context.default_spec)
    with gr.Column(elem_classes="sm-panel sm-hero"):
        with gr.Row(elem_classes="sm-split"):
            with gr.Column(scale=5, min_width=290):
                gr.HTML(INTRO)
                preset = gr.Radio(list(context.presets), value=next(iter(context.presets)), label="Ready-made pool")
                with gr.Row(elem_classes="sm-actions"):
                    launch = gr.Button("Launch the merge", variant="primary", size="lg", elem_id="pool-launch")
                    check = gr.Button("Check the pool", size="lg", elem_id="pool-check")
            with gr.Column(scale=4, min_width=290):
                overview = gr.HTML(pool_map(context.default_spec))
        message = gr.HTML(elem_id="pool-notice")
        checks = gr.HTML(elem_id="pool-checks")
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML("<h2>Models</h2><p>Hub id, id@revision, folder, base+lora, or demo/NAME.</p>")
        fields, slots, add_expert = _model_fields(form)
    with gr.Accordion("The same run as a file", open=False, elem_classes="sm-panel"):
        gr.HTML("<p>The form and the file say the same; <code>python -m core run</code> takes the file.</p>")
        with gr.Row(elem_classes="sm-actions"):
            write_yaml = gr.Button("Write the form as YAML", size="sm")
            read_yaml = gr.Button("Fill the form from this YAML", size="sm")
            upload_yaml = gr.UploadButton("Open a YAML file", file_types=[".yaml", ".yml"], size="sm")
        yaml = gr.Code(language="yaml", label="SPEC.yaml", lines=8, interactive=True, elem_id="spec-yaml")
    return PoolTab(
        fields=fields,
        preset=preset,
        notice=message,
        overview=overview,
        launch=launch,
        check=check,
        checks=checks,
        slots=slots,
        add_expert=add_expert,
        yaml=yaml,
        write_yaml=write_yaml,
        read_yaml=read_yaml,
        upload_yaml=upload_yaml,
    )


def wire(tab: PoolTab) -> None:
    """Bind what concerns this tab alone."""
    models = [tab.fields[expert_field(slot, "model")] for slot in range(1, EXPERT_SLOTS)]
    tab.add_expert.click(bind(show_next_slot), models, tab.slots)


def show_next_slot(*models: str) -> list[Any]:
    """Show one more expert than are named (slots 2 and up; the first is always there)."""
    used = max((slot for slot, model in enumerate(models, start=1) if model), default=0)
    return [gr.update(visible=slot <= used + 1) for slot in range(1, EXPERT_SLOTS)]


def check_pool(context: AppContext, form: Mapping[str, Any]) -> str:
    """Form -> spec -> checks -> table; loads no weights."""
    from core.preflight.run_check import preflight

    spec = spec_from_form(form)
    refuse_local_paths(spec, context.settings)
    return preflight_table(preflight(spec, context.settings))


def draw_pool(form: Mapping[str, Any]) -> Any:
    """The overview of the form's pool; left as it is while the form is incomplete."""
    try:
        return pool_map(spec_from_form(form))
    except SpecError:
        return gr.skip()


def preset_form(context: AppContext, label: str) -> Form:
    """The form of a ready-made pool."""
    return form_from_spec(context.presets[label])


def yaml_form(text: str) -> Form:
    """The form of a YAML text; raises `SpecError`."""
    return form_from_spec(parse_spec(text or ""))


def slot_updates(form: Mapping[str, Any]) -> list[Any]:
    """Show as many expert slots as the form uses."""
    shown = filled_slots(form)
    return [gr.update(visible=slot < shown) for slot in range(1, EXPERT_SLOTS)]


def _model_fields(form: Form) -> tuple[Fields, list[gr.Group], gr.Button]:
    fields: Fields = {}
    with gr.Row():
        fields["base"] = gr.Textbox(form["base"], label="Base", info="The aligned general model", elem_id="pool-base")
        fields["generator"] = gr.Textbox(form["generator"], label="Question generator", info="Writes unsafe questions")
        fields["guard"] = gr.Dropdown(
            list(GUARD_CHOICES),
            value=form["guard"],
            label="Guard",
            info="Judges replies; or any model of a supported family, or two: phrases & MODEL",
            allow_custom_value=True,
        )
    slots = []
    for slot in range(EXPERT_SLOTS):
        with gr.Group(visible=slot < filled_slots(form), elem_classes="sm-slot") as group:
            fields |= _expert_fields(slot, form)
        slots.append(group)
    with gr.Row(elem_classes="sm-actions"):
        add_expert = gr.Button("Add an expert", size="sm")
    with gr.Accordion("Ancestor, vocabulary and memory", open=False, elem_classes="sm-sub"):
        fields["ancestor"] = gr.Textbox(
            form["ancestor"], label="Ancestor", info="Outside common base for task vectors; empty = the base itself"
        )
        fields["vocabulary"] = gr.Radio(
            [(name, choice) for choice, name in VOCABULARIES.items()],
            value=form["vocabulary"],
            label="Vocabularies of other sizes",
            info="Keep the base's rows: tokens that the base lacks are left out, missing rows are the base's",
        )
        fields["memory"] = gr.Dropdown(
            [(name, memory) for memory, name in MEMORY.items()],
            value=form["memory"],
            label="Weights in memory",
            info="How they wait between merges. The merges are the same; the check says what each takes",
        )
        fields["dtype"] = gr.Radio(
            list(get_args(NumberFormat)),
            value=form["dtype"],
            label="Number format",
            info="auto: the one that suits this machine; name one to get the same figures on every machine",
        )
    return fields, slots[1:], add_expert


def _expert_fields(slot: int, form: Form) -> Fields:
    def box(field: str, label: str, info: str) -> gr.Textbox:
        return gr.Textbox(form[expert_field(slot, field)], label=label, info=info)

    with gr.Row():
        model = box("model", f"Expert {slot + 1}", "The model that brings a skill")
        domain = box("domain", "Domain", "Its name in data and charts")
    with gr.Accordion("An own domain", open=False, elem_classes="sm-sub"), gr.Row():
        topic = box("topic", "Topic", "Words for the question prompt")
        suite = box("suite", "Suite", "lm-eval task or suite")
        examples = box("examples", "Examples", "JSONL of example questions")
    parts = {"model": model, "domain": domain, "topic": topic, "suite": suite, "examples": examples}
    return {expert_field(slot, name): part for name, part in parts.items()}
