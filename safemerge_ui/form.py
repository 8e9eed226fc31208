"""The one conversion between the page's form and a `RunSpec`: form -> spec -> YAML and back.

A form is a plain mapping from field name to value. Everything a spec can say and the page offers goes through here,
so that what the page launches is exactly what `python -m core run` would run from the exported file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from core.contracts.run_spec import ExpertSpec, RunSpec, spec_from_dict
from core.contracts.safe_yaml import load_yaml
from core.errors import SpecError, YamlError
from safemerge_ui.evaluation_form import evaluation_form, read_evaluation
from safemerge_ui.fields import listed, optional, optional_whole, required, shown, whole

EXPERT_SLOTS = 4
EXPERT_FIELDS = ("model", "domain", "topic", "suite", "examples", "template")
_SEARCH_FIELDS = ("optimizer", "method", "steps", "alpha", "safety", "seed", "stop_when_flat", "temperature")
_GENOME_SWITCHES = ("smooth", "allow_negative_weights", "normalize")
_OBJECTIVE_FIELDS = ("objective", "safety_tolerance", "beta", "start", "regularize")
_NO_FIELD = "Remove these keys here, or start the spec from its file, without the page."

Form = dict[str, Any]


def expert_field(slot: int, field: str) -> str:
    """Name of a field of the expert in `slot` (0-based)."""
    return f"expert{slot}_{field}"


def spec_from_form(form: Mapping[str, Any]) -> RunSpec:
    """Read the form as a spec.

    Raises:
        SpecError: a value is missing or out of range; the message names the key.
    """
    return spec_from_dict(
        {
            "pool": {
                "base": required(form, "base", "the base model"),
                "experts": _experts(form),
                "ancestor": optional(form, "ancestor"),
                "generator": optional(form, "generator"),
                "guard": required(form, "guard", "the guard"),
                "config": optional(form, "config") or "base",
                "vocabulary": form["vocabulary"],
                "memory": form["memory"],
                "dtype": form["dtype"],
            },
            "data": {
                "safety": _source(form, "safety") | {"fallback_refusals": form["safety_fallback"]},
                "domain": _source(form, "domain"),
                "benign": _benign(form),
                "reply_tokens": whole(form["data_reply_tokens"]),
            },
            "search": {
                "optimizer": form["optimizer"],
                "method": form["method"],
                "steps": whole(form["steps"]),
                "alpha": form["alpha"],
                "safety": form["safety"],
                "seed": whole(form["seed"]),
                "stop_when_flat": form["stop_when_flat"] or None,
                "temperature": form["temperature"],
                "compare": form["compare"],
                "parameters": _parameters(form),
                "genome": {
                    "layer_granularity": optional_whole(form, "genome_layer_granularity"),
                    "filters": listed(form["genome_filters"]),
                    **{key: form[f"genome_{key}"] for key in _GENOME_SWITCHES},
                },
                **{key: form[key] for key in _OBJECTIVE_FIELDS},
                "expert_weights": _expert_weights(form),
            },
            "evaluation": read_evaluation(form),
            "export": {"folder": form["export_folder"]},
        }
    )


def form_from_spec(spec: RunSpec) -> Form:
    """The form that reads back as `spec`.

    Raises:
        SpecError: the spec asks for something the page has no field for; the message names the keys.
    """
    if len(spec.pool.experts) > EXPERT_SLOTS:
        raise SpecError(
            f"The page holds {EXPERT_SLOTS} experts; this spec has {len(spec.pool.experts)}.",
            _NO_FIELD,
            code="no-field",
        )
    form: Form = {
        "base": spec.pool.base,
        "ancestor": spec.pool.ancestor or "",
        "generator": spec.pool.generator or "",
        "guard": spec.pool.guard,
        "config": spec.pool.config,
        "vocabulary": spec.pool.vocabulary,
        "memory": spec.pool.memory,
        "dtype": spec.pool.dtype,
        **{key: getattr(spec.search, key) for key in (*_SEARCH_FIELDS, *_OBJECTIVE_FIELDS)},
        "expert_weights": "\n".join(
            f"{name}: {weight!r}" for name, weight in (spec.search.expert_weights or {}).items()
        ),
        "compare": list(spec.search.compare),
        "parameters": _written(spec.search.model_dump(mode="json")["parameters"]),
        "data_reply_tokens": spec.data.reply_tokens,
        **evaluation_form(spec.evaluation),
        "export_folder": spec.export.folder,
    }
    genome = spec.search.genome
    form |= {f"genome_{key}": getattr(genome, key) for key in _GENOME_SWITCHES}
    form["genome_layer_granularity"] = shown(genome.layer_granularity)
    form["genome_filters"] = ", ".join(genome.filters)
    for name, source in (("safety", spec.data.safety), ("domain", spec.data.domain)):
        form |= {f"{name}_source": source.source, f"{name}_path": source.path or "", f"{name}_k": source.k}
        form |= {f"{name}_config": source.config or "", f"{name}_split": source.split or ""}
        form[f"{name}_columns"] = _flow(source.columns.model_dump(mode="json", exclude_defaults=True))
        form[f"{name}_mix"] = "\n".join(_flow(one.model_dump(mode="json", exclude_defaults=True)) for one in source.mix)
    form["benign"] = _flow(spec.data.benign.model_dump(mode="json", exclude_none=True)) if spec.data.benign else ""
    form["safety_fallback"] = spec.data.safety.fallback_refusals
    for slot in range(EXPERT_SLOTS):
        form |= _expert_form(slot, spec.pool.experts[slot] if slot < len(spec.pool.experts) else None)
    if lost := changed_keys(spec.model_dump(mode="json"), spec_from_form(form).model_dump(mode="json")):
        raise SpecError(
            f"The page has no field for what this spec says in {', '.join(lost)}.", _NO_FIELD, code="no-field"
        )
    return form


def changed_keys(one: Mapping[str, Any], other: Mapping[str, Any], place: str = "") -> list[str]:
    """Keys, written `search.steps`, whose values differ; for mappings with other keys, or lists, the whole of them."""
    changed = []
    for key, value in one.items():
        if isinstance(value, dict) and isinstance(other[key], dict) and value.keys() == other[key].keys():
            changed += changed_keys(value, other[key], f"{place}{key}.")
        elif value != other[key]:
            changed.append(f"{place}{key}")
    return changed


def filled_slots(form: Mapping[str, Any]) -> int:
    """How many expert slots to show: up to the last one in use, at least one."""
    used = [slot for slot in range(EXPERT_SLOTS) if optional(form, expert_field(slot, "model"))]
    return max(used, default=0) + 1


def _expert_form(slot: int, expert: ExpertSpec | None) -> Form:
    domain = expert.domain.model_dump() if expert else {}
    values = {"model": expert.model if expert else None, "domain": domain.pop("name", None), **domain}
    return {expert_field(slot, field): values.get(field) or "" for field in EXPERT_FIELDS}


def _experts(form: Mapping[str, Any]) -> list[dict[str, Any]]:
    experts = []
    for slot in range(EXPERT_SLOTS):
        values = {field: optional(form, expert_field(slot, field)) for field in EXPERT_FIELDS}
        if values["model"]:
            domain = {"name": values["domain"] or "domain"} | {key: values[key] for key in EXPERT_FIELDS[2:]}
            experts.append({"model": values["model"], "domain": domain})
    if not experts:
        raise SpecError("The pool has no expert.", "Name at least one model to merge into the base.")
    return experts


def _parameters(form: Mapping[str, Any]) -> Any:
    """The method's fixed parameters, written as `name: value, name: [value, value]`."""
    text = optional(form, "parameters")
    try:
        return load_yaml(f"{{{text}}}") if text else {}
    except YamlError as error:
        example = "Write them as `lambda: 0.8, normalize: true`."
        raise SpecError(f"The fixed parameters cannot be read: {text}", example) from error


def _written(parameters: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(parameters, default_flow_style=True, sort_keys=False, width=float("inf"))
    return text.strip()[1:-1]


def _source(form: Mapping[str, Any], name: str) -> dict[str, Any]:
    source = form[f"{name}_source"]
    path = optional(form, f"{name}_path")
    return {
        "source": source,
        "path": path,
        "k": whole(form[f"{name}_k"]),
        "config": optional(form, f"{name}_config"),
        "split": optional(form, f"{name}_split"),
        "columns": _columns(form, name),
        "mix": _mix(form, name),
    }


def _benign(form: Mapping[str, Any]) -> Any:
    """The source of harmless look-alikes, such as `source: file, path: questions.jsonl, k: 64`."""
    text = optional(form, "benign")
    try:
        return load_yaml(f"{{{text}}}") if text else None
    except YamlError as error:
        raise SpecError(
            "The source of harmless look-alikes cannot be read.",
            "Write it like source: file, path: questions.jsonl, k: 64.",
        ) from error


def _flow(given: Mapping[str, Any]) -> str:
    """A mapping as one line of YAML, as a person would write it: `question: prompt, answer: reply`."""
    line = yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).strip()
    return line[1:-1] if given else ""


def _columns(form: Mapping[str, Any], name: str) -> Any:
    try:
        return load_yaml(f"{{{form[f'{name}_columns'] or ''}}}")
    except YamlError as error:
        raise SpecError(
            f"The columns of the {name} data cannot be read.", "Write them like question: prompt, answer: reply."
        ) from error


def _mix(form: Mapping[str, Any], name: str) -> list[Any]:
    """Further sources, one a line, each like `source: file, path: pairs.csv, k: 32`."""
    try:
        lines = str(form[f"{name}_mix"] or "").splitlines()
        return [load_yaml(f"{{{line}}}") for line in lines if line.strip()]
    except YamlError as error:
        raise SpecError(
            f"The further sources of the {name} data cannot be read.",
            "Write one a line, like source: file, path: pairs.csv, k: 32.",
        ) from error


def _expert_weights(form: Mapping[str, Any]) -> dict[str, float] | None:
    """Lines `expert: number`; nothing for an empty field."""
    weights: dict[str, float] = {}
    for line in filter(None, map(str.strip, str(form["expert_weights"] or "").splitlines())):
        name, _, number = line.rpartition(":")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            raise SpecError(
                f"search.expert_weights: {line!r} is not an expert and a number.", "Write lines like `chemistry: 2`."
            ) from None
    return weights or None
