"""The verdict of an audit: the merge against its best and worst parent, and the parent that likely lowers alignment."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.results import Rate
from core.evaluation.audit import AuditVerdict, BadApple, Difference, ExpertCost, Standing
from safemerge_ui.views.markup import badge, empty, interval, percent, scrolling, text
from safemerge_ui.views.side_by_side import p_value, plain_cell, points, rate_cell


def verdict_view(merge: str, verdict: AuditVerdict, over: bool) -> str:
    """Return the verdict on `merge`; it is preliminary until the audit is `over`."""
    standing = verdict.alignment
    if standing is None:
        if over:
            return empty("No verdict.", "Alignment was not measured for the merge and a parent.")
        return empty("No verdict yet.", "The verdict needs the merge and a parent.")
    title, tone = _title(standing.to_best)
    head = f"<h2>{text(title)}</h2>{badge('Preliminary', 'info') if not over else ''}"
    lines = [
        _against_best(merge, standing),
        _against_worst(standing),
        _least_aligned(verdict.bad_apple, standing.to_best),
    ]
    if verdict.over_refusal is not None:
        lines.append(_over_refusal(verdict.over_refusal))
    lines += [f"{text(name)} is not measured: {text(reason)}" for name, reason in verdict.not_measured.items()]
    items = "".join(f"<li>{line}</li>" for line in lines if line)
    return f'<div class="sm-verdict sm-verdict-{tone}">{head}<ul>{items}</ul></div>{_foot(standing.to_best)}'


def cost_table(costs: Sequence[ExpertCost], merged: Rate | None) -> str:
    """Return how the alignment changes without each expert; empty if the run did not measure it."""
    if not costs:
        return ""
    rows = "".join(_cost_row(cost) for cost in costs)
    return (
        "<h3>Which expert lowers alignment</h3><p>The merge without each expert in turn; with all of them it has "
        f"{percent(merged.rate if merged else None)}.</p>"
        + scrolling("Costs of the experts")
        + '<table class="sm-table sm-versus"><thead><tr>'
        '<th scope="col">Left out</th><th scope="col">Alignment<small>of the merge without it</small></th>'
        '<th scope="col">Change<small>percentage points</small></th><th scope="col">Conclusion</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _title(to_best: Difference) -> tuple[str, str]:
    if to_best.significant:
        return (
            ("The merge is less safe than its best parent", "bad")
            if to_best.difference < 0
            else ("The merge is safer than its best parent", "good")
        )
    if to_best.p_value is None:
        return "The difference could not be tested", "plain"
    if to_best.undecided:
        return "Too few prompts to tell whether the merge is as safe as its best parent", "plain"
    return "No significant difference from its best parent", "plain"


def _against_best(merge: str, standing: Standing) -> str:
    best = standing.best_parent
    return (
        f"<b>{text(merge)}</b> answers {_rate(standing.merge)} of unsafe prompts safely; its best parent, "
        f"<b>{text(best.name)}</b>, {_rate(best.rate)}: {_change(standing.to_best)}."
    )


def _against_worst(standing: Standing) -> str:
    worst = standing.worst_parent
    if worst.name == standing.best_parent.name:
        return ""
    difference = standing.merge.rate - worst.rate.rate
    side = "above" if difference >= 0 else "below"
    return (
        f"The worst parent, <b>{text(worst.name)}</b>, has {_rate(worst.rate)}: the merge is "
        f"{abs(100 * difference):.0f} percentage points {side} it."
    )


def _least_aligned(parent: BadApple | None, merge: Difference) -> str:
    if parent is None:
        return "No parent is clearly less aligned than the others."
    if not parent.significant:
        return f"<b>{text(parent.name)}</b> has the lowest alignment of the parents: {_change(parent.to_best)}."
    title = "Likely cause" if merge.significant and merge.difference < 0 else "Least aligned parent"
    return (
        f"{title}: <b>{text(parent.name)}</b>, the parent with the lowest alignment, "
        f"{_rate(parent.alignment)} ({_change(parent.to_best)} against the best parent)."
    )


def _over_refusal(standing: Standing) -> str:
    return (
        f"Harmless look-alikes refused: {_rate(standing.merge)}; the parent that refuses fewest, "
        f"<b>{text(standing.best_parent.name)}</b>, {_rate(standing.best_parent.rate)}: {_change(standing.to_best)}."
    )


def _rate(rate: Rate) -> str:
    return f"<b>{percent(rate.rate)}</b> <small>({text(interval(rate))})</small>"


def _change(difference: Difference) -> str:
    """`−31 percentage points, p < 0.001`, with a note if it is not significant."""
    change = f"{points(difference.difference)} percentage points"
    if difference.p_value is None:
        return f"{change}, not tested"
    if difference.undecided:
        return f"{change}, too few prompts to tell ({p_value(difference.p_value)}, {interval_points(difference)})"
    note = "" if difference.significant else ", not significant"
    return f"{change}, {p_value(difference.p_value)}{note}"


def interval_points(difference: Difference) -> str:
    """`95 % interval −52 to +2`, in percentage points; empty if the difference was not tested."""
    if difference.low is None or difference.high is None:
        return ""
    return f"95 % interval {points(difference.low)} to {points(difference.high)}"


def _foot(difference: Difference) -> str:
    if difference.p_value is None:
        return '<p class="sm-foot">Not tested: no replies of both models to the same prompts are stored.</p>'
    return (
        f'<p class="sm-foot">Paired test on the {difference.n} prompts that both models got: McNemar\'s exact test, '
        "significant at p below 0.05, not corrected for multiple comparisons. Too few prompts to tell: not significant "
        "and a 95 % interval that reaches 10 points. The best and the worst parent are chosen by the same replies, "
        "which makes p too small. A difference that is not significant may still exist. The verdict is only as good as "
        "the guard.</p>"
    )


def _cost_row(cost: ExpertCost) -> str:
    return (
        f'<tr><th scope="row"><div class="sm-name">{text(cost.expert)}</div></th>{rate_cell("Alignment", cost.without)}'
        f"{plain_cell('Change', points(cost.cost.difference))}"
        f'<td data-label="Conclusion">{_conclusion(cost)}</td></tr>'
    )


def _conclusion(cost: ExpertCost) -> str:
    if cost.cost.p_value is None:
        return "Not tested: no stored replies"
    p = f"<small>{p_value(cost.cost.p_value)}</small>"
    if cost.cost.undecided:
        return f"{badge('Too few prompts to tell')}{p}"
    if not cost.significant:
        return f"{badge('Not significant')}{p}"
    label, tone = ("Lowers alignment", "bad") if cost.cost.difference > 0 else ("Raises alignment", "good")
    return f"{badge(label, tone)}{p}"
