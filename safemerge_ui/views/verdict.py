"""What an audit found, in plain words: the merge against its best and worst parent, and who likely spoiled it."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.results import Rate
from core.evaluation.audit import AuditVerdict, BadApple, Difference, ExpertCost, Standing
from safemerge_ui.views.markup import badge, empty, interval, percent, text
from safemerge_ui.views.side_by_side import p_value, plain_cell, points, rate_cell


def verdict_view(merge: str, verdict: AuditVerdict, over: bool) -> str:
    """The verdict on `merge`; a preliminary one until the audit is `over`."""
    standing = verdict.alignment
    if standing is None:
        waits = "The verdict needs the merge and a parent." if not over else "No unsafe prompts were put to both."
        return empty("No verdict yet." if not over else "No verdict.", waits)
    title, tone = _title(standing.to_best)
    head = f"<h2>{text(title)}</h2>{badge('So far', 'info') if not over else ''}"
    lines = [_against_best(merge, standing), _against_worst(standing), _apple(verdict.bad_apple, standing.to_best)]
    if verdict.over_refusal is not None:
        lines.append(_over_refusal(verdict.over_refusal))
    lines += [f"{text(name)} is not measured: {text(why)}" for name, why in verdict.not_measured.items()]
    items = "".join(f"<li>{line}</li>" for line in lines if line)
    return f'<div class="sm-verdict sm-verdict-{tone}">{head}<ul>{items}</ul></div>{_foot(standing.to_best)}'


def cost_table(costs: Sequence[ExpertCost], merged: Rate | None) -> str:
    """What the merge gains in alignment without each expert in turn; empty for a run that did not measure it."""
    if not costs:
        return ""
    rows = "".join(_cost_row(cost) for cost in costs)
    return (
        "<h3>Which expert costs the alignment</h3><p>The merge without each expert in turn; with all of them it has "
        f"{percent(merged.rate if merged else None)}.</p>"
        '<div class="sm-scroll"><table class="sm-table sm-versus"><thead><tr>'
        '<th scope="col">Left out</th><th scope="col">Alignment<small>of the merge without it</small></th>'
        '<th scope="col">Change<small>points</small></th><th scope="col">Reading</th></tr></thead>'
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
    return "No difference from its best parent beyond chance", "plain"


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
        f"{abs(100 * difference):.0f} points {side} it."
    )


def _apple(apple: BadApple | None, merge: Difference) -> str:
    if apple is None:
        return "No parent stands out as the one that spoils the merge."
    if not apple.significant:
        chance = "" if apple.to_best.p_value is None else ", but not beyond chance"
        return f"<b>{text(apple.name)}</b> has the lowest alignment of the parents{chance}: {_change(apple.to_best)}."
    title = "Likely bad apple" if merge.significant and merge.difference < 0 else "Least aligned"
    return (
        f"{title}: <b>{text(apple.name)}</b>, the parent with the lowest alignment, "
        f"{_rate(apple.alignment)} ({_change(apple.to_best)} against the best parent)."
    )


def _over_refusal(standing: Standing) -> str:
    return (
        f"Harmless look-alikes refused: {_rate(standing.merge)}; the parent that refuses fewest, "
        f"<b>{text(standing.best_parent.name)}</b>, {_rate(standing.best_parent.rate)}: {_change(standing.to_best)}."
    )


def _rate(rate: Rate) -> str:
    return f"<b>{percent(rate.rate)}</b> <small>({text(interval(rate))})</small>"


def _change(difference: Difference) -> str:
    """`−31 points, p < 0.001`, with a word where it is not beyond chance."""
    change = f"{points(difference.difference)} points"
    if difference.p_value is None:
        return f"{change}, not tested"
    word = "" if difference.significant else ", no more than chance"
    return f"{change}, {p_value(difference.p_value)}{word}"


def _foot(difference: Difference) -> str:
    if difference.p_value is None:
        return '<p class="sm-foot">Not tested: there are no replies of both to the same prompts on disk.</p>'
    return (
        f'<p class="sm-foot">Tested in pairs, prompt by prompt on {difference.n} prompts that both were put: '
        "McNemar's exact test; p below 0.05 counts as more than chance, without correction for the number of "
        "comparisons; best and worst parent are picked by the same replies, which makes p too small. No difference "
        "beyond chance does not show that there is none. What the guard cannot see, the verdict cannot say.</p>"
    )


def _cost_row(cost: ExpertCost) -> str:
    return (
        f'<tr><th scope="row"><div class="sm-name">{text(cost.expert)}</div></th>{rate_cell("Alignment", cost.without)}'
        f"{plain_cell('Change', points(cost.cost.difference))}"
        f'<td data-label="Reading">{_cost_words(cost)}</td></tr>'
    )


def _cost_words(cost: ExpertCost) -> str:
    if cost.cost.p_value is None:
        return "not tested: no replies on disk"
    p = f"<small>{p_value(cost.cost.p_value)}</small>"
    if not cost.significant:
        return f"{badge('No more than chance')}{p}"
    word, tone = ("Costs alignment", "bad") if cost.cost.difference > 0 else ("Helps alignment", "good")
    return f"{badge(word, tone)}{p}"
