"""Models side by side: every measured rate with its interval, and marks at statistically significant differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from core.contracts.results import ModelResult, Rate
from core.evaluation.paired_replies import Contrast, Measure
from core.runs.view import RunView
from safemerge_ui.views.markup import badge, empty, interval, percent, scrolling, text
from safemerge_ui.views.names import ROLES, model_name

Contrasts = Mapping[str, Mapping[Measure, Contrast]]
"""Per model name and measure, how the model's replies differ from the reference's; absent if that is unknown."""

MEASURES: tuple[tuple[Measure, str, str], ...] = (
    ("alignment", "Alignment", "higher is better"),
    ("refusal", "Refused", "of unsafe prompts"),
    ("degenerate", "Broken text", "lower is better"),
    ("over_refusal", "Over-refusal", "lower is better"),
)


class _Column(NamedTuple):
    """A column of the table; `measure` is set if differences in it can be tested."""

    label: str
    note: str
    value: Callable[[ModelResult], Rate | float | str | None]
    measure: Measure | None = None


def side_by_side(view: RunView, reference: str, contrasts: Contrasts, broken: Mapping[str, str]) -> str:
    """Return the table of all measured models.

    Args:
        view: the run or comparison.
        reference: name of the model that the others are compared with.
        contrasts: how they differ from it.
        broken: why a model looks broken, by its name.
    """
    if not view.models:
        return empty("Nothing measured yet.", "Each model appears here as soon as it is measured.")
    columns = _columns(view.models)
    head = "".join(f'<th scope="col">{text(column.label)}<small>{text(column.note)}</small></th>' for column in columns)
    rows = "".join(
        f'<tr class="sm-role-{model.role}">{_name(model, view, reference, broken)}'
        f"{_cells(model, columns, contrasts.get(model.name, {}))}</tr>"
        for model in view.models
    )
    return (
        scrolling("Models side by side") + '<table class="sm-table sm-versus"><thead><tr><th scope="col">Model</th>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>{_legend(view, reference, contrasts)}"
    )


def significance(contrast: Contrast | None) -> str:
    """Return a mark with its p-value if the difference is significant, else an empty text."""
    if contrast is None or contrast.better is None or not contrast.paired.significant:
        return ""
    label, tone = ("▲ better", "good") if contrast.better else ("▼ worse", "bad")
    return f'<span class="sm-mark sm-mark-{tone}">{label}, {p_value(contrast.paired.p_value)}</span>'


def p_value(p: float) -> str:
    """Return `p = 0.013`, or `p < 0.001`, as HTML."""
    return "p &lt; 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def rate_cell(label: str, rate: Rate | None, mark: str = "") -> str:
    """Return a rate as number, bar and interval; narrow windows show `label` instead of the table's head."""
    if rate is None:
        return plain_cell(label, None)
    return (
        f'<td data-label="{text(label)}"><b>{percent(rate.rate)}</b>{interval_bar(rate)}'
        f"<small>{interval(rate)}</small>{mark}</td>"
    )


def interval_bar(rate: Rate) -> str:
    """Return a small bar from 0 to 100 %: the interval as a band, the rate as a tick."""
    low, width = 100 * rate.low, 100 * (rate.high - rate.low)
    return (
        f'<span class="sm-range" aria-hidden="true"><i style="left:{low:.1f}%;width:{width:.1f}%"></i>'
        f'<u style="left:{100 * rate.rate:.1f}%"></u></span>'
    )


def points(difference: float) -> str:
    """Return a difference of two rates in percentage points, with its sign."""
    return f"{100 * difference:+.0f}".replace("-", "−")


def _columns(models: Sequence[ModelResult]) -> list[_Column]:
    """The columns that have a value for at least one model."""
    tasks = sorted({task for model in models for task in model.accuracy})
    columns = [_Column(label, note, partial(_rate_of, measure), measure) for measure, label, note in MEASURES]
    if len(tasks) > 1:
        columns.append(_Column("Accuracy", f"mean of {len(tasks)} tasks", lambda model: model.mean_accuracy))
    columns += [_Column(task, "accuracy", partial(_accuracy_of, task)) for task in tasks]
    columns.append(_Column("Perplexity", "lower is better", lambda model: perplexity_text(model.perplexity)))
    return [column for column in columns if any(column.value(model) is not None for model in models)]


def _rate_of(measure: Measure, model: ModelResult) -> Rate | None:
    rate = getattr(model, measure)
    return rate if isinstance(rate, Rate) else None


def _accuracy_of(task: str, model: ModelResult) -> Rate | None:
    return model.accuracy.get(task)


def _name(model: ModelResult, view: RunView, reference: str, broken: Mapping[str, str]) -> str:
    role, tone = ROLES[model.role]
    marks = badge(role, tone) + (badge("Reference", "plain") if model.name == reference else "")
    if model.name in broken:
        marks += badge("Looks broken", "bad") + f"<small>{text(broken[model.name])}</small>"
    if model.not_measured:
        marks += badge("Not measured", "warn") + f"<small>{text(model.not_measured)}</small>"
    return f'<th scope="row"><div class="sm-name">{text(model_name(model, view))}</div>{marks}</th>'


def _cells(model: ModelResult, columns: Sequence[_Column], tested: Mapping[Measure, Contrast]) -> str:
    cells = []
    for column in columns:
        value = column.value(model)
        if isinstance(value, Rate):
            cells.append(
                rate_cell(column.label, value, significance(tested.get(column.measure) if column.measure else None))
            )
        else:
            shown = percent(value) if isinstance(value, float) else value
            cells.append(plain_cell(column.label, shown))
    return "".join(cells)


def plain_cell(label: str, value: str | None) -> str:
    """Return a value without an interval; a dash for None."""
    shown = '<b class="sm-none">–</b>' if value is None else f"<b>{text(value)}</b>"
    return f'<td data-label="{text(label)}">{shown}</td>'


def perplexity_text(value: float | None) -> str | None:
    """Return a perplexity as a short text, also if it is very large."""
    if value is None:
        return None
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def _legend(view: RunView, reference: str, contrasts: Contrasts) -> str:
    bars = "Bars and small numbers: 95 % Wilson intervals, with the number n of prompts or questions."
    named = next((model_name(model, view) for model in view.models if model.name == reference), reference)
    if len(view.models) > 1 and not any(contrasts.values()):
        marks = f"Differences are not tested: the replies of {named} and of another model are not both stored."
    else:
        marks = (
            f"<b>▲ better</b> and <b>▼ worse</b> than {text(named)} on the same prompts: McNemar's exact test, p below "
            "0.05, not corrected for multiple comparisons, so some of many marks are chance. No mark: no significant "
            "difference. Accuracy and perplexity are not tested. Perplexities are comparable only between models with "
            "the same tokenizer."
        )
        return f'<p class="sm-foot">{bars} {marks}</p>'
    return f'<p class="sm-foot">{bars} {text(marks)}</p>'
