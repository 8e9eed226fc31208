"""Pool: which models are merged. The form opens with the demo pool, ready to launch, and takes any other models."""

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
from safemerge_ui.boundary import Updates, bind
from safemerge_ui.form import EXPERT_SLOTS, Form, expert_field, filled_slots, form_from_spec, spec_from_form
from safemerge_ui.views.names import MEMORY, VOCABULARIES
from safemerge_ui.views.pool_overview import pool_overview
from safemerge_ui.views.preflight_table import preflight_table

GUARD_CHOICES = (
    "phrases",
    "reply-type",
    "Qwen/Qwen3Guard-Gen-0.6B",
    "Qwen/Qwen3Guard-Gen-8B",
    "meta-llama/Llama-Guard-3-8B",
    "meta-llama/Meta-Llama-Guard-2-8B",
    "allenai/wildguard",
    "ibm-granite/granite-guardian-3.0-2b",
    "ibm-granite/granite-guardian-4.1-8b",
    "nvidia/Nemotron-Content-Safety-Reasoning-4B",
    "google/shieldgemma-2b",
)
"""Published guards to choose from; the field also accepts any other name."""

INTRO = """<div class="sm-intro"><h1>Keep the refusals. Gain the skill.</h1>
<p>A merge of an aligned model with a domain expert often stops refusing harmful requests: one badly aligned model is
enough. SafeMerge searches for merge weights on domain <em>and</em> safety data together.</p></div>"""


Fields = dict[str, gr.components.Component]


@dataclass(frozen=True)
class PoolTab:
    """Components of the tab; `fields` is this tab's part of the form, `slots` holds experts 2 and up."""

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
    """Lay out the tab, with the default spec in its fields."""
    form = form_from_spec(context.default_spec)
    with gr.Column(elem_classes="sm-panel sm-hero"):
        with gr.Row(elem_classes="sm-split"):
            with gr.Column(scale=5, min_width=290):
                gr.HTML(INTRO)
                preset = gr.Radio(list(context.presets), value=next(iter(context.presets)), label="Preset")
                with gr.Row(elem_classes="sm-actions"):
                    launch = gr.Button("Launch the merge", variant="primary", size="lg", elem_id="pool-launch")
                    check = gr.Button("Check the pool", size="lg", elem_id="pool-check")
            with gr.Column(scale=4, min_width=290):
                overview = gr.HTML(pool_overview(context.default_spec), elem_id="pool-overview")
        message = gr.HTML(elem_id="pool-notice")
        checks = gr.HTML(elem_id="pool-checks")
    with gr.Column(elem_classes="sm-panel"):
        gr.HTML("<h2>Models</h2><p>Each as a Hub id, id@revision, a local folder, base+lora, or demo/NAME.</p>")
        fields, slots, add_expert = _model_fields(form)
    with gr.Accordion("Run specification (YAML)", open=False, elem_classes="sm-panel", elem_id="pool-spec"):
        gr.HTML("<p>The whole form as a file, which starts the same run without the page too.</p>")
        with gr.Row(elem_classes="sm-actions"):
            write_yaml = gr.Button("Write the form as YAML", size="sm", elem_id="spec-write")
            read_yaml = gr.Button("Fill the form from this YAML", size="sm", elem_id="spec-read")
            upload_yaml = gr.UploadButton(
                "Open a YAML file", file_types=[".yaml", ".yml"], size="sm", elem_id="spec-upload"
            )
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
    tab.add_expert.click(bind(show_next_slot, tab), models, tab.slots)


def overview_fields(tab: PoolTab) -> list[gr.Textbox | gr.Dropdown]:
    """Return the fields that the overview shows; it is updated when the visitor leaves one of them."""
    shown = ("base", "generator", "guard", "ancestor")
    chosen = [field for name, field in tab.fields.items() if name in shown or name.endswith(("_model", "_domain"))]
    return [field for field in chosen if isinstance(field, gr.Textbox | gr.Dropdown)]


def show_next_slot(tab: PoolTab, *models: str) -> Updates:
    """Show one more expert slot than are in use; `models` are those of slots 2 and up."""
    used = max((slot for slot, model in enumerate(models, start=1) if model), default=0)
    return {slot: gr.update(visible=number <= used + 1) for number, slot in enumerate(tab.slots, start=1)}


def show_slots(tab: PoolTab, form: Mapping[str, Any]) -> Updates:
    """Show as many expert slots as the form uses."""
    shown = filled_slots(form)
    return {slot: gr.update(visible=number < shown) for number, slot in enumerate(tab.slots, start=1)}


def show_overview(tab: PoolTab, form: Mapping[str, Any]) -> Updates:
    """Show the form's pool; nothing changes while the form is incomplete."""
    try:
        return {tab.overview: pool_overview(spec_from_form(form))}
    except SpecError:
        return {}


def check_pool(context: AppContext, form: Mapping[str, Any]) -> str:
    """Return the table of checks of the form's pool; loads no weights."""
    from core.preflight.run_check import preflight

    spec = spec_from_form(form)
    refuse_local_paths(spec, context.settings)
    return preflight_table(preflight(spec, context.settings))


def preset_form(context: AppContext, label: str) -> Form:
    """Return the form of a preset."""
    return form_from_spec(context.presets[label])


def yaml_form(text: str) -> Form:
    """Return the form of a YAML text; raises `SpecError`."""
    return form_from_spec(parse_spec(text or ""))


def _model_fields(form: Form) -> tuple[Fields, list[gr.Group], gr.Button]:
    fields: Fields = {}
    with gr.Row():
        fields["base"] = gr.Textbox(form["base"], label="Base", info="The aligned general model", elem_id="pool-base")
        fields["generator"] = gr.Textbox(
            form["generator"], label="Question generator", info="Writes the unsafe questions of the safety data"
        )
        fields["guard"] = gr.Dropdown(
            list(GUARD_CHOICES),
            value=form["guard"],
            label="Guard",
            info="Judges replies: phrases, a guard model, or several joined by &",
            allow_custom_value=True,
        )
    slots = []
    for slot in range(EXPERT_SLOTS):
        with gr.Group(visible=slot < filled_slots(form), elem_classes="sm-slot") as group:
            fields |= _expert_fields(slot, form)
        slots.append(group)
    with gr.Row(elem_classes="sm-actions"):
        add_expert = gr.Button("Add an expert", size="sm")
    with gr.Accordion("Advanced: ancestor, configuration, memory", open=False, elem_classes="sm-sub"):
        fields["ancestor"] = gr.Textbox(
            form["ancestor"], label="Ancestor", info="Model that task vectors are computed from. Empty: the base model"
        )
        fields["config"] = gr.Textbox(
            form["config"],
            label="Configuration of the merge",
            info="`base`, or an expert: whose rope settings, chat template and end tokens the merge has",
        )
        fields["vocabulary"] = gr.Radio(
            [(name, choice) for choice, name in VOCABULARIES.items()],
            value=form["vocabulary"],
            label="Different vocabulary sizes",
            info="If an expert's vocabulary differs from the base's: refuse the pool, or keep the base's tokens and "
            "take their embedding rows from the base where the expert has none",
        )
        fields["memory"] = gr.Dropdown(
            [(name, memory) for memory, name in MEMORY.items()],
            value=form["memory"],
            label="Weight storage",
            info="Where model weights are stored between merges. Every choice gives the same merges; the check lists "
            "the memory that each needs",
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
        model = box("model", f"Expert {slot + 1}", "Model fine-tuned for a domain")
        domain = box("domain", "Domain", "Its name in the data and charts")
    with gr.Accordion("Custom domain and prompt format", open=False, elem_classes="sm-sub"), gr.Row():
        topic = box("topic", "Topic", "Named in the prompt that writes questions")
        suite = box("suite", "Accuracy suite", "lm-eval task or suite")
        examples = box("examples", "Example questions", "JSONL file")
        template = box("template", "Prompt format", "alpaca, chatml, plain, ... or a Jinja file; empty: its own")
    parts = {
        "model": model,
        "domain": domain,
        "topic": topic,
        "suite": suite,
        "examples": examples,
        "template": template,
    }
    return {expert_field(slot, name): part for name, part in parts.items()}
