"""The settings on the left of the Merge tab: how weights are searched, what is measured and saved."""

from __future__ import annotations

import gradio as gr

from core.contracts.merge_methods import METHODS, fast_methods, offered_methods, rival_methods
from core.contracts.optimizers import OPTIMIZERS, baselines, optimizers_reading
from safemerge_ui.form import Form
from safemerge_ui.views.names import OBJECTIVES

Fields = dict[str, gr.components.Component]


def build_fields(form: Form) -> Fields:
    """Lay out this tab's part of the form; each field with the name it has there.

    A number that may be empty has a placeholder: without one the page would show and send 0 for it.
    """
    fields: Fields = {}
    _search_fields(fields, form)
    _evaluation_fields(fields, form)
    return fields


def _search_fields(fields: Fields, form: Form) -> None:
    methods = [(title, name) for name, title in offered_methods().items()]
    optimizers = [(row.title, row.name) for row in OPTIMIZERS.values()]
    comparisons = [(row.title, row.name) for row in baselines().values()]
    gr.HTML("<h1>Search</h1>")
    fields["safety"] = gr.Checkbox(form["safety"], label="Safety-aware", info="Off: domain data alone, as a baseline")
    fields["optimizer"] = gr.Radio(
        optimizers,
        value=form["optimizer"],
        label="Optimizer",
        info=". ".join(f"{row.short}: {row.sentence}" for row in OPTIMIZERS.values()),
    )
    fields["method"] = gr.Dropdown(
        methods,
        value=form["method"],
        label="Merge method",
        info=f"The first {len(fast_methods())} have a fast path; the last {len(rival_methods())} are published "
        "safety-aware methods that mergekit lacks; mergekit's own code merges the others. "
        f"{_interpolating()}: one expert",
    )
    with gr.Row():
        fields["steps"] = gr.Number(form["steps"], label="Steps", info="Candidates", precision=0, min_width=100)
        fields["alpha"] = gr.Number(form["alpha"], label="Alpha", info="Weight of the skill", step=0.05, min_width=100)
    fields["seed"] = gr.Number(form["seed"], label="Seed", info="Same seed, same search", precision=0)
    fields["compare"] = gr.CheckboxGroup(comparisons, value=form["compare"], label="Compare with")
    with gr.Accordion("More of the search", open=False, elem_classes="sm-sub"):
        gr.HTML("<h3>Objective and scoring</h3>")
        _objective_fields(fields, form)
        gr.HTML("<h3>Searched parameters</h3>")
        _genome_fields(fields, form)
        gr.HTML("<h3>Optimizers</h3>")
        with gr.Row():
            fields["start"] = gr.Textbox(
                form["start"],
                label="Start",
                info=f"{optimizers_reading('start')}: plain, cocktail, or the folder of an earlier run",
                min_width=100,
            )
            fields["regularize"] = gr.Number(
                form["regularize"],
                label="Pull to equal weights",
                info=optimizers_reading("regularize"),
                step=0.01,
                min_width=100,
            )
        with gr.Row():
            fields["stop_when_flat"] = gr.Number(
                form["stop_when_flat"],
                label="Stop when flat",
                info=f"{optimizers_reading('stop_when_flat')}; nats, 0: never",
                min_width=100,
            )
            fields["temperature"] = gr.Number(
                form["temperature"],
                label="Temperature",
                info=optimizers_reading("temperature"),
                step=0.5,
                min_width=100,
            )


def _interpolating() -> str:
    """Titles of the methods that merge the base and one expert."""
    return ", ".join(offered_methods()[name] for name, info in METHODS.items() if info.interpolates)


def _genome_fields(fields: Fields, form: Form) -> None:
    fields["parameters"] = gr.Textbox(
        form["parameters"], label="Fixed parameters", info="Not searched, such as lambda: 0.8, normalize: true"
    )
    fields["genome_layer_granularity"] = gr.Textbox(
        form["genome_layer_granularity"],
        label="Blocks in a group",
        info="Each group has its own parameters; empty: one group",
        placeholder="all",
    )
    fields["genome_filters"] = gr.Textbox(
        form["genome_filters"],
        label="Tensor filters",
        info="Own parameters for tensors so named: self_attn, mlp. modules: every projection by itself",
    )
    fields["genome_smooth"] = gr.Checkbox(
        form["genome_smooth"], label="Smooth", info="Interpolate linearly between groups"
    )
    fields["genome_allow_negative_weights"] = gr.Checkbox(
        form["genome_allow_negative_weights"], label="Negative weights", info="Down to -1: away from a model"
    )
    fields["genome_normalize"] = gr.Checkbox(
        form["genome_normalize"], label="Normalize", info="Weights divided by their sum"
    )


def _objective_fields(fields: Fields, form: Form) -> None:
    fields["objective"] = gr.Radio(
        [(name, mode) for mode, name in OBJECTIVES.items()],
        value=form["objective"],
        label="Objective",
        info=f"{optimizers_reading('objective')}. Pareto: both losses at once; alpha picks the merge. Keep alignment: "
        "best skill whose safety loss is no worse than the safest parent's",
    )
    fields["safety_tolerance"] = gr.Number(
        form["safety_tolerance"], label="Safety tolerance", info="Keep alignment: nats above that parent", step=0.05
    )
    fields["beta"] = gr.Number(
        form["beta"], label="Beta", info="Weight of the loss on harmless look-alikes; 0: without them", step=0.1
    )
    fields["benign"] = gr.Textbox(
        form["benign"],
        label="Harmless look-alikes",
        info="Such as source: file, path: questions.jsonl, k: 64. Empty: written for gradient search only",
    )
    fields["expert_weights"] = gr.Textbox(
        form["expert_weights"],
        label="Weights of experts",
        info="Lines like `chemistry: 2`; experts left out count 1. Empty: every domain pair counts the same",
        lines=2,
    )


def _evaluation_fields(fields: Fields, form: Form) -> None:
    with gr.Accordion("Measurement and export", open=False, elem_classes="sm-sub"):
        fields["eval_prompts"] = gr.Textbox(form["eval_prompts"], label="Unsafe test prompts", info="File; alignment")
        fields["eval_benign"] = gr.Textbox(form["eval_benign"], label="Harmless look-alikes", info="File; over-refusal")
        fields["eval_probe"] = gr.Textbox(
            form["eval_probe"], label="Probe prompts", info="File; best of each generation"
        )
        fields["eval_probe_benign"] = gr.Textbox(
            form["eval_probe_benign"], label="Harmless probe prompts", info="File; over-refusal during the search"
        )
        fields["eval_probe_questions"] = gr.Textbox(
            form["eval_probe_questions"], label="Probe questions", info="File; grid search. Empty: the demo suites' own"
        )
        fields["eval_suite"] = gr.Textbox(form["eval_suite"], label="Accuracy suite", info="Empty: the experts' own")
        fields["eval_limit"] = gr.Textbox(
            form["eval_limit"], label="Limit", info="Most prompts a file; empty: all", placeholder="all"
        )
        fields["eval_reply_tokens"] = gr.Number(
            form["eval_reply_tokens"], label="Longest reply", info="Tokens of a measured reply", precision=0
        )
        with gr.Accordion("More measuring", open=False, elem_classes="sm-sub"):
            _task_fields(fields, form)
        fields["export_folder"] = gr.Checkbox(form["export_folder"], label="Save the merged model")


def _task_fields(fields: Fields, form: Form) -> None:
    with gr.Row():
        fields["eval_prompt_column"] = gr.Textbox(
            form["eval_prompt_column"],
            label="Prompt column",
            info="In the prompt files. Empty: a usual name, such as `prompt` or `goal`",
            min_width=130,
        )
        fields["eval_category_column"] = gr.Textbox(
            form["eval_category_column"],
            label="Category column",
            info="Empty: a usual name, such as `category`",
            min_width=130,
        )
    fields["eval_tasks"] = gr.Textbox(
        form["eval_tasks"], label="lm-eval tasks", info="Between commas; instead of a suite"
    )
    fields["eval_include_path"] = gr.Textbox(
        form["eval_include_path"], label="Folder of task files", info="Your own, besides lm-eval's"
    )
    fields["eval_num_fewshot"] = gr.Textbox(
        form["eval_num_fewshot"],
        label="Examples",
        info="Before each question; empty: as each task says",
        placeholder="as each task says",
    )
    fields["eval_chat_template"] = gr.Radio(
        [("As the suite says", "suite"), ("Yes", "on"), ("No", "off")],
        value=form["eval_chat_template"],
        label="Chat template",
        info="Whether questions go through it",
    )
    fields["eval_fluency"] = gr.Checkbox(form["eval_fluency"], label="Fluency", info="Perplexity of a neutral text")
    fields["eval_leave_one_out"] = gr.Checkbox(
        form["eval_leave_one_out"],
        label="Leave one out",
        info="Which expert costs the merge its alignment",
    )
