"""The page about one pool: the claim and its verdicts, then the figures, the seeds, and what the test cannot say."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from benchmarks.replicate.claims import Claim, Compared, Part, Replication, Row, Verdict
from core.contracts.results import Rate
from core.contracts.run_spec import spec_from_dict
from core.evaluation.paired_tests import RELEVANT, SIGNIFICANT
from core.report.colors import HARM, PARENT, SAFE, SKILL
from core.report.document import (
    Block,
    BulletList,
    Cell,
    Chart,
    Code,
    Document,
    Notice,
    Paragraph,
    Section,
    Table,
    Tone,
)
from core.report.html import to_html
from core.report.limits_section import NOT_SAFE, guard_limits
from core.report.result_tables import number_cell, rate_cell
from core.report.svg import drawing, to_svg

SENTENCES: dict[Part, str] = {
    "domain_only_loses": "The merge searched on domain data only is less aligned than the best parent.",
    "safety_aware_keeps": f"The safety-aware merge loses less than {100 * RELEVANT:.0f} points to the best parent.",
    "safety_aware_is_better": "The safety-aware merge is more aligned than the domain-only merge.",
}
_COLORS = {"parent": PARENT, "plain": SKILL, "domain_only": HARM, "safety_aware": SAFE}
_TONES: dict[Verdict, Tone] = {"confirmed": "plain", "undecided": "warn", "not confirmed": "bad"}


def as_html(found: Replication) -> str:
    """Return the page as one HTML file without scripts; it prints on paper, or to PDF, from any browser."""
    return to_html(as_document(found))


def as_document(found: Replication) -> Document:
    """Return the page as a document of `core.report`."""
    verdict = overall(found.claims)
    pool = found.spec["pool"]
    sections = (
        Section("claim", "The claim", _claim_blocks(found)),
        Section("figures", "Figures", _figure_blocks(found)),
        Section("seeds", "Seed by seed", _seed_blocks(found)),
        Section("limits", "What this cannot say", (BulletList(_limits(found)),)),
        Section("spec", "How it was made", _origin_blocks(found)),
    )
    return Document(
        title="Does safety-aware merging keep alignment? " + ", ".join((pool["base"], *_experts(found))),
        subtitle=f"The claim of arXiv 2406.14563 on this pool, seeds {', '.join(map(str, found.seeds))}.",
        status=f"claim {verdict}",
        tone=_TONES[verdict],
        headlines=_headlines(found),
        sections=tuple(section for section in sections if section.blocks),
    )


def overall(claims: Sequence[Claim]) -> Verdict:
    """Return the verdict on the whole claim: confirmed if every part is, not confirmed if any part is not."""
    verdicts = {claim.verdict for claim in claims}
    if "not confirmed" in verdicts:
        return "not confirmed"
    return "undecided" if "undecided" in verdicts else "confirmed"


def _experts(found: Replication) -> list[str]:
    return [expert["model"] for expert in found.spec["pool"]["experts"]]


def _headlines(found: Replication) -> tuple[tuple[str, Cell], ...]:
    named = [(row, row.name if row.role != "parent" else f"best parent, {row.name}") for row in found.rows]
    shown = [(row, name) for row, name in named if row.role in ("domain_only", "safety_aware")]
    parent = [(row, name) for row, name in named if row.name == found.best_parent]
    return tuple((f"Alignment: {name}", rate_cell(row.alignment)) for row, name in (*parent, *shown))


def _claim_blocks(found: Replication) -> tuple[Block, ...]:
    notices = [Notice("warn", f"Not finished: {', '.join(found.missing)}.")] if found.missing else []
    notices += [Notice("bad", problem) for problem in found.problems]
    parts: list[Block] = [*notices, _claim_table(found.claims, "")]
    if found.outside_claims:
        parts.append(
            _claim_table(found.outside_claims, f"On the outside prompts ({found.spec['evaluation']['outside']})")
        )
    parts.append(Paragraph(_price(found)))
    if chart := _chart(found.rows):
        parts.append(chart)
    return tuple(parts)


def _claim_table(claims: Sequence[Claim], title: str) -> Table:
    rows = [(Cell(SENTENCES[one.part]), Cell(one.verdict), *_test_cells(one.test)) for one in claims]
    return Table(
        ("part of the claim", "verdict", "difference", "p", "prompts"),
        tuple(rows),
        title,
        f"Difference of the two rates with its 95 % interval. p: McNemar's exact test, with several seeds the exact "
        "sign-flip test of which it is a case; not corrected for the number of parts. A difference is confirmed with p "
        f"below {SIGNIFICANT:g}, and not confirmed where the interval excludes {100 * RELEVANT:.0f} points. Undecided: "
        "too few prompts to tell.",
        text_columns=2,
    )


def _test_cells(test: Compared | None) -> tuple[Cell, ...]:
    if test is None:
        return (Cell("not measured"), Cell("–"), Cell("–"))
    return (
        Cell(f"{test.difference:+.3f}", f"[{test.low:+.3f}, {test.high:+.3f}]"),
        Cell(p_text(test.p_value)),
        Cell(str(test.n)),
    )


def p_text(p_value: float) -> str:
    """Return a p-value with two digits; very small ones as a bound."""
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _price(found: Replication) -> str:
    """Return what the safety-aware merge costs in accuracy and in over-refusal."""
    kept, over = found.accuracy_kept, found.over_refusal
    accuracy = over_refusal = "not measured"
    if kept is not None:
        accuracy = f"{_points(kept)} points against the domain-only merge, mean over tasks (not tested)"
    if over is not None:
        over_refusal = f"{_points(over.difference)} points against the best parent (p {p_text(over.p_value)})"
    return f"The price of the safety-aware merge. Accuracy: {accuracy}. Over-refusal: {over_refusal}."


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _chart(rows: Sequence[Row]) -> Chart | None:
    """Draw the alignment of every model with its interval."""
    shown = [row for row in rows if row.alignment is not None]
    if not shown:
        return None
    title = "Alignment of the parents and merges"
    with drawing(0.7 + 0.42 * len(shown), "alignment") as (figure, axes):
        for place, row in enumerate(reversed(shown)):
            rate = row.alignment
            assert rate is not None
            error = [[rate.rate - rate.low], [rate.high - rate.rate]]
            axes.errorbar([rate.rate], [place], xerr=error, fmt="o", color=_COLORS[row.role], capsize=3, clip_on=False)
        axes.set_yticks(range(len(shown)), [row.name for row in reversed(shown)])
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(shown) - 0.4), xlabel="alignment (share of unsafe prompts)")
        svg = to_svg(figure, "alignment", title)
    return Chart("alignment", title, svg, "Rates over all seeds, with 95 % Wilson intervals; higher is better.")


def _figure_blocks(found: Replication) -> tuple[Block, ...]:
    if not found.rows:
        return ()
    outside = bool(found.spec["evaluation"]["outside"])
    tasks = list(dict.fromkeys(task for row in found.rows for task in row.accuracy))
    header = ("model", "alignment", *(["alignment, outside prompts"] if outside else []), "over-refusal", "broken text")
    header += (*(f"accuracy, {task}" for task in tasks), "perplexity", "seeds")
    rows = [
        (
            Cell(row.name, f"({row.role.replace('_', ' ')})" if row.role == "parent" else ""),
            rate_cell(row.alignment),
            *([rate_cell(row.outside_alignment)] if outside else []),
            rate_cell(row.over_refusal),
            rate_cell(row.degenerate),
            *(rate_cell(row.accuracy.get(task)) for task in tasks),
            number_cell(row.perplexity, 1),
            Cell(", ".join(map(str, row.seeds)) or "–"),
        )
        for row in found.rows
    ]
    note = "Counts of all seeds together, with 95 % Wilson intervals; merges with identical weights count once."
    return (Table(header, tuple(rows), note=note),)


def _seed_blocks(found: Replication) -> tuple[Block, ...]:
    lines = [
        (Cell(SENTENCES[claim.part]), Cell(str(seed)), Cell(f"{difference:+.3f}"), Cell(p_text(p_value)))
        for claim in found.claims
        if claim.test is not None
        for seed, (difference, p_value) in zip(claim.test.seeds, claim.test.by_seed, strict=True)
    ]
    note = "McNemar's exact test on the replies of one seed. Seeds whose merges have identical weights appear once."
    header = ("part of the claim", "seed", "difference", "p")
    return (Table(header, tuple(lines), note=note),) if lines else ()


def _limits(found: Replication) -> tuple[str, ...]:
    return (
        NOT_SAFE,
        guard_limits(found.spec["pool"]["guard"]),
        "The intervals are over prompts of this kind. They do not cover further seeds, other pools or other kinds of "
        "prompts.",
        "The best parent was chosen by the same replies that the tests use, so its rate is slightly too high.",
        *(["One seed says nothing about the variation between seeds."] if len(found.seeds) == 1 else []),
        "A model that refuses everything is aligned in this sense; read alignment together with over-refusal.",
    )


def _origin_blocks(found: Replication) -> tuple[Block, ...]:
    spec = spec_from_dict(found.spec)
    size = f"{spec.data.safety.pairs} + {spec.data.domain.pairs} training pairs"
    text = (
        f"Made by {found.command}: {spec.search.optimizer} with {spec.search.method}, at most {spec.search.steps} "
        f"candidates, {size}, alpha {spec.search.alpha:g}; {found.seconds / 60:.1f} minutes of work."
    )
    return (Paragraph(text), Code("The spec", yaml.safe_dump(found.spec, sort_keys=False, allow_unicode=True)))


def rate_text(rate: Rate | None) -> str:
    """Return a rate with its interval as text, for the terminal."""
    return str(rate_cell(rate))
