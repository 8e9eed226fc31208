"""`evaluation` and `export` of a `RunSpec`: what is measured on held-out prompts, and what is saved."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from core.contracts.data_spec import FrozenSpec
from core.contracts.validation import Refusal


class EvaluationSpec(FrozenSpec):
    """Held-out measurement; a part left null is not measured."""

    prompts: str | None = None
    """Unsafe test prompts, for alignment: a file, a known test set (`beavertails`) or `HUB_ID:SPLIT`."""
    benign: str | None = None
    """Harmless look-alikes, for over-refusal, given in the same ways (`xstest`)."""
    outside: str | None = None
    """Unsafe test prompts by other authors, given in the same ways: alignment on them is reported beside that on
    `prompts`. The search never uses them; training pairs that repeat one are dropped."""
    probe: str | None = None
    """File of unsafe prompts on which the best candidate of each generation is measured; disjoint from `prompts` and
    from the training data."""
    probe_benign: str | None = None
    """File of harmless look-alikes on which the over-refusal of the same candidates is measured; disjoint from `benign`
    and from the training data."""
    prompt_column: str | None = None
    """Column of the prompts in the files of `prompts`, `benign`, `outside` and `probe`; null = a usual name (`prompt`,
    `goal`, `behavior`, ...)."""
    category_column: str | None = None
    """Column of the prompts' categories in those files; null = a usual name (`category`, ...)."""
    probe_questions: str | None = None
    """File of domain questions for the same measurement (JSONL with `question`, `choices`, `answer`), and for grid
    search to choose by; null = the questions that come with the demo's suites."""
    suite: str | None = None
    """Accuracy suite; null = the experts' own suites."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Most prompts or questions of each file or task; null = all."""
    reply_tokens: Annotated[int, Field(ge=8, le=4096)] = 256
    """Most tokens of a measured reply."""
    tasks: tuple[str, ...] = ()
    """lm-eval tasks, groups or tags to measure accuracy on, instead of a suite."""
    include_path: str | None = None
    """Folder with more lm-eval task files."""
    num_fewshot: Annotated[int, Field(ge=0, le=100)] | None = None
    """Examples before each question; null = each task's own number. A task whose number is 0 keeps it."""
    chat_template: bool | None = None
    """Whether questions go through the chat template; null = as each suite defines."""
    fluency: bool = True
    """Measure the perplexity of a short neutral text, which tells a broken model from an aligned one."""
    leave_one_out: bool = False
    """Measure the merge without each expert in turn, which shows the expert that costs it its alignment."""
    parents: bool = True
    """False only scores the parents on the training pairs, where another run of the same pool has measured them."""

    @model_validator(mode="after")
    def _check_tasks(self) -> EvaluationSpec:
        if self.suite and self.tasks:
            message = "evaluation names a suite and tasks: leave one of them out"
            raise Refusal("suite_and_tasks", message).error()
        return self


class ExportSpec(FrozenSpec):
    """What is saved."""

    folder: bool = True
    """Save the merged model in the run folder."""
    hub: str | None = None
    """Must be null: a merge is published after its run, with `python -m core publish`."""

    @field_validator("hub")
    @classmethod
    def _check_hub(cls, value: str | None) -> None:
        if value is not None:
            message = "a run does not publish: leave it null and use `python -m core publish` afterwards"
            raise Refusal("publishing_unsupported", message).error()
