"""The headline of a finished run: one sentence and three large figures (parent, domain-only merge, the run's merge)."""

from __future__ import annotations

from core.contracts.results import ModelResult
from core.evaluation.audit import Difference, Replies
from core.evaluation.headline import Headline, headline_of
from core.runs.view import RunView
from safemerge_ui.views.markup import interval, percent, text
from safemerge_ui.views.names import is_audit, is_safety_aware, model_name

_TONES = {"parent": "parent", "baseline": "skill", "merged": "safe", "model": "parent"}


def headline_view(view: RunView, replies: Replies) -> str:
    """Return the verdict on a run with its figures; empty until its last models are measured.

    Args:
        view: the run or comparison.
        replies: model name -> recorded replies.
    """
    if not view.over:
        return ""
    headline = headline_of(view.models, replies)
    if headline is not None:
        shown = [model for model in (headline.parent, headline.other, headline.merge) if model is not None]
        sentence, tone = headline_sentence(headline, view)
    else:
        shown, sentence, tone = _compared(view)
    if not shown:
        return ""
    tiles = "".join(figure_tile(model, view) for model in shown)
    return (
        f'<section class="sm-headline sm-verdict sm-verdict-{tone}"><h2>{text(sentence)}</h2>'
        f'<div class="sm-figures">{tiles}</div></section>'
    )


def figure_tile(model: ModelResult, view: RunView, name: str = "") -> str:
    """Return a model's alignment in large type, with its interval and its accuracy."""
    accuracy = "" if model.mean_accuracy is None else f" · accuracy {percent(model.mean_accuracy)}"
    rate = model.alignment.rate if model.alignment else None
    return (
        f'<div class="sm-figure sm-figure-{_TONES[model.role]}"><span>{text(name or model_name(model, view))}</span>'
        f"<b>{percent(rate)}</b><small>alignment {interval(model.alignment)}{accuracy}</small></div>"
    )


def headline_sentence(headline: Headline, view: RunView) -> tuple[str, str]:
    """Return the verdict in one sentence, and its tone: good, warn, bad or plain."""
    merge = f"The {_lower(model_name(headline.merge, view))}" if not view.is_comparison else headline.merge.name
    own = f"{merge} has {_rate(headline.merge)} alignment"
    against_other, against_parent = _against_other(headline, merge, view), _against_parent(headline)
    parts = [part for part in (against_other or own, against_parent) if part]
    return "; ".join(parts) + ".", _tone(headline, view)


def _against_other(headline: Headline, merge: str, view: RunView) -> str:
    difference, other = headline.to_other, headline.other
    if difference is None or other is None:
        return ""
    ours, name = _rate(headline.merge), _lower(model_name(other, view))
    theirs = f"the {name} ({_rate(other)})"
    match _conclusion(difference):
        case "more":
            return f"{merge} keeps {ours} alignment, the {name} only {_rate(other)}"
        case "less":
            return f"{merge} has {ours} alignment, less than {theirs}"
        case "undecided":
            return f"{difference.n} prompts are too few to tell {_lower(merge)} ({ours} alignment) from {theirs}"
        case "untested":
            return f"{merge} has {ours} alignment, the {name} {_rate(other)}; the difference was not tested"
    return f"{merge} ({ours} alignment) is as aligned as {theirs}"


def _against_parent(headline: Headline) -> str:
    difference, parent = headline.to_parent, headline.parent
    if difference is None or parent is None:
        return ""
    theirs = f"its best parent, {parent.name} ({_rate(parent)})"
    match _conclusion(difference):
        case "more":
            return f"it is safer than {theirs}"
        case "less":
            return f"it is less safe than {theirs}"
        case "undecided":
            return f"{difference.n} prompts are too few to tell it from {theirs}"
        case "untested":
            return f"its best parent, {parent.name}, has {_rate(parent)}, not tested"
    return f"no relevant difference from {theirs}"


def _conclusion(difference: Difference) -> str:
    if difference.p_value is None:
        return "untested"
    if difference.significant:
        return "more" if difference.difference > 0 else "less"
    return "undecided" if difference.undecided else "same"


def _tone(headline: Headline, view: RunView) -> str:
    """Return good if the merge is safer than a model and less safe than none, bad for the opposite."""
    against = [_conclusion(one) for one in (headline.to_other, headline.to_parent) if one is not None]
    if "less" in against:
        return "warn" if "more" in against else "bad"
    safety_aware = not view.is_comparison and is_safety_aware(view.spec.get("search") or {})
    return "good" if "more" in against and (safety_aware or view.is_comparison) else "plain"


def _compared(view: RunView) -> tuple[list[ModelResult], str, str]:
    """The safest and the least safe of compared models, with a sentence; nothing where alignment was not measured."""
    rated = sorted((model for model in view.models if model.alignment), key=_alignment, reverse=True)
    if not view.is_comparison or is_audit(view) or not rated:
        return [], "", "plain"
    if len(rated) == 1:
        return rated, f"{rated[0].name} has {_rate(rated[0])} alignment.", "plain"
    best, worst = rated[0], rated[-1]
    apart = best.alignment and worst.alignment and best.alignment.low > worst.alignment.high
    doubt = "" if apart else "; their intervals overlap, so these prompts are too few to tell them apart"
    sentence = (
        f"{best.name} has the highest alignment, {_rate(best)}, and {worst.name} the lowest, {_rate(worst)}{doubt}."
    )
    return [best, *rated[1:-1][:1], worst], sentence, "plain"


def _alignment(model: ModelResult) -> float:
    return model.alignment.rate if model.alignment else 0.0


def _rate(model: ModelResult) -> str:
    return percent(model.alignment.rate if model.alignment else None)


def _lower(name: str) -> str:
    """A title within a sentence; a reference keeps its case."""
    return name if "/" in name.split(" ")[0] else name[:1].lower() + name[1:]
