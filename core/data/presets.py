"""Datasets with a short name: their Hub id, the split for training, and the meaning of their columns.

Splits follow lm-eval: a split on which lm-eval measures is refused for training, whatever its name. For MedMCQA and
WinoGrande this is `validation`, because their test answers are not public; so their training split is `train`.
"""

from __future__ import annotations

from typing import NamedTuple

from core.contracts.data_spec import ColumnsSpec, SourceSpec
from core.data.training_pairs import Dataset
from core.errors import SpecError


class Preset(NamedTuple):
    """A known dataset.

    Attributes:
        dataset: the training set that it is for.
        repo_id: its id on the Hub.
        config: configuration, None when it has only one.
        split: split for training.
        measured: splits for measurement.
        columns: the columns to read.
    """

    dataset: Dataset
    repo_id: str
    config: str | None
    split: str
    measured: tuple[str, ...]
    columns: ColumnsSpec


class DatasetChoice(NamedTuple):
    """A dataset on the Hub with everything that is needed to read it.

    Attributes:
        repo_id: its id on the Hub.
        revision: branch, tag or commit; None = its main branch.
        config: configuration; None = the only one.
        split: split to read.
        columns: the columns to read.
    """

    repo_id: str
    revision: str | None
    config: str | None
    split: str
    columns: ColumnsSpec


_UNSAFE_QUESTIONS = ColumnsSpec(question="prompt", category="category", where={"is_safe": False})
_ARC = ColumnsSpec(question="question", choices=("choices",), answer="answerKey")
PRESETS = {
    "beavertails": Preset(
        "safety", "PKU-Alignment/BeaverTails", None, "30k_train", ("30k_test", "330k_test"), _UNSAFE_QUESTIONS
    ),
    "medmcqa": Preset(
        "domain",
        "openlifescienceai/medmcqa",
        None,
        "train",
        ("validation", "test"),
        ColumnsSpec(question="question", choices=("opa", "opb", "opc", "opd"), answer="cop", category="subject_name"),
    ),
    "medqa": Preset(
        "domain",
        "GBaker/MedQA-USMLE-4-options-hf",
        None,
        "validation",
        ("test",),
        ColumnsSpec(question="sent1", choices=("ending0", "ending1", "ending2", "ending3"), answer="label"),
    ),
    "pubmedqa": Preset(
        "domain",
        "bigbio/pubmed_qa",
        "pubmed_qa_labeled_fold0_source",
        "validation",
        ("test",),
        ColumnsSpec(question="QUESTION", answer="LONG_ANSWER"),
    ),
    "mmlu": Preset(
        "domain",
        "cais/mmlu",
        "all",
        "validation",
        ("test",),
        ColumnsSpec(question="question", choices=("choices",), answer="answer", category="subject"),
    ),
    "arc_challenge": Preset("domain", "allenai/ai2_arc", "ARC-Challenge", "validation", ("test",), _ARC),
    "arc_easy": Preset("domain", "allenai/ai2_arc", "ARC-Easy", "validation", ("test",), _ARC),
    "winogrande": Preset(
        "domain",
        "allenai/winogrande",
        "winogrande_xl",
        "train",
        ("validation", "test"),
        ColumnsSpec(question="sentence", choices=("option1", "option2"), answer="answer"),
    ),
}


def choose_dataset(source: SourceSpec) -> DatasetChoice:
    """Complete the dataset that a spec names; values of the spec take precedence over the preset.

    A preset can be named by its short name or its Hub id.

    Raises:
        SpecError: no split is named, the split is for measurement, or the spec names the column of BeaverTails' harmful
            responses.
    """
    name, _, revision = str(source.path).strip().partition("@")
    preset = PRESETS.get(name) or next((p for p in PRESETS.values() if p.repo_id.casefold() == name.casefold()), None)
    split = source.split or (preset.split if preset else None)
    if split is None:
        hint = "Name its train or validation split in `split`."
        raise SpecError(f"The dataset {name} needs a split.", hint, code="split-missing")
    if preset is None:
        return DatasetChoice(name, revision or None, source.config, split, source.columns)
    if split in preset.measured:
        raise SpecError(
            f"Merges are measured on the split '{split}' of {preset.repo_id}, so it cannot be used for training.",
            f"Use '{preset.split}'.",
            code="measured-split",
        )
    if preset.dataset == "safety" and source.columns.answer:
        raise SpecError(
            f"The responses of {preset.repo_id} are harmful and are never read.",
            "Leave out columns.answer: the refusals come from the pool.",
            code="harmful-responses",
        )
    given = {name: value for name, value in source.columns if name in source.columns.model_fields_set and value}
    columns = preset.columns.model_copy(update=given)
    return DatasetChoice(preset.repo_id, revision or None, source.config or preset.config, split, columns)
