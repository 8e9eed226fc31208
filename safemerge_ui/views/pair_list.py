"""The live preview of training pairs: question, answer, the model that answered, and why a pair was dropped.

Safety questions are covered until the visitor clicks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from core.contracts.events import SampleSeen
from core.data.training_pairs import FALLBACK
from core.runs.view import RunView
from safemerge_ui.views.disputed import dispute_lines
from safemerge_ui.views.markup import badge, covered, empty, plain_words, text
from safemerge_ui.views.names import category_name

PAGE_SIZE = 12


def choose_samples(samples: Sequence[SampleSeen], dataset: str, shown: str) -> list[tuple[int, SampleSeen]]:
    """Return the samples to show with their position in the log, newest first.

    Args:
        samples: all samples of a run, in the order of the log.
        dataset: `safety`, `domain` or `all`; or a category, as `safety/SLUG`.
        shown: `kept`, `dropped`, `all`, or `disputed` by guards; or the reason for dropping.
    """
    chosen = [
        (number, sample)
        for number, sample in enumerate(samples)
        if dataset in ("all", sample.dataset, f"{sample.dataset}/{sample.category}")
        and (
            shown in ("all", "kept" if sample.kept else "dropped", sample.reason or "kept")
            or (shown == "disputed" and sample.disputed)
        )
    ]
    return chosen[::-1]


def page_count(chosen: Sequence[tuple[int, SampleSeen]]) -> int:
    """Return how many pages the samples fill, at least one."""
    return max(1, -(-len(chosen) // PAGE_SIZE))


def sample_cards(chosen: Sequence[tuple[int, SampleSeen]], page: int = 1) -> str:
    """Return one page of cards (1-based); the last page if `page` is too high."""
    if not chosen:
        return empty("No pairs match these filters.", "Choose others above, or wait until the run has made some.")
    page = max(1, min(page, page_count(chosen)))
    first = (page - 1) * PAGE_SIZE
    cards = "".join(_card(number, sample) for number, sample in chosen[first : first + PAGE_SIZE])
    return f'<div class="sm-cards" tabindex="0" role="region" aria-label="Pairs">{cards}</div>'


def data_summary(view: RunView) -> str:
    """Return the numbers of kept and of all questions per dataset, and of dropped ones by reason."""
    if not view.samples and view.data is None:
        return ""
    seen, kept = _counts(view)
    tiles = "".join(
        f'<div class="sm-tile"><b>{kept[name]}</b><span>of {seen[name]} {label} questions kept</span></div>'
        for name, label in (("safety", "safety"), ("domain", "domain"))
    )
    return f'<div class="sm-tiles">{tiles}{_reasons(view)}</div>'


def refusal_table(view: RunView) -> str:
    """Return how many questions of each category each model of the pool refused."""
    asked: Counter[tuple[str, str]] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    for sample in view.samples:
        for verdict in filter(lambda verdict: verdict.model, sample.verdicts):
            asked[sample.category, verdict.model] += 1
            refused[sample.category, verdict.model] += verdict.model in sample.refused_by
    if not asked:
        return ""
    models = list(dict.fromkeys(model for _, model in asked))
    head = "".join(f'<th class="sm-mono">{text(model.rsplit("/", 1)[-1])}</th>' for model in models)
    rows = [("All", [_share(refused, asked, model) for model in models])]
    for category in sorted({category for category, _ in asked}):
        rows.append((category_name(category), [_share(refused, asked, model, category) for model in models]))
    body = "".join(
        f"<tr><td>{text(name)}</td>{''.join(f'<td>{text(share)}</td>' for share in shares)}</tr>"
        for name, shares in rows
    )
    return f'<table class="sm-table"><thead><tr><th>Refused</th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _share(
    refused: Counter[tuple[str, str]], asked: Counter[tuple[str, str]], model: str, category: str | None = None
) -> str:
    """Return `3 of 4` refused, of one category or of all."""
    chosen = [key for key in asked if key[1] == model and category in (None, key[0])]
    total = sum(asked[key] for key in chosen)
    return f"{sum(refused[key] for key in chosen)} of {total}" if total else "–"


def _counts(view: RunView) -> tuple[dict[str, int], dict[str, int]]:
    if view.data is not None:
        ready = view.data
        seen = {"safety": ready.safety_seen, "domain": ready.domain_seen}
        return seen, {"safety": ready.safety_kept, "domain": ready.domain_kept}
    seen = Counter(str(sample.dataset) for sample in view.samples)
    return seen, Counter(str(sample.dataset) for sample in view.samples if sample.kept)


def _reasons(view: RunView) -> str:
    dropped = view.data.dropped if view.data else Counter(s.reason for s in view.samples if not s.kept)
    if not dropped:
        return '<div class="sm-tile sm-wide"><b>0</b><span>dropped</span></div>'
    items = "".join(
        f"<li><b>{count}</b> {text(plain_words(reason))}</li>"
        for reason, count in sorted(dropped.items(), key=lambda item: -item[1])
    )
    return f'<div class="sm-tile sm-wide"><ul class="sm-reasons">{items}</ul><span>dropped, by reason</span></div>'


def _card(number: int, sample: SampleSeen) -> str:
    verdict = badge("Kept", "good") if sample.kept else badge(f"Dropped: {sample.reason}", "warn")
    dataset = badge("Safety" if sample.dataset == "safety" else "Domain", "info")
    category = f'<span class="sm-category">{text(category_name(sample.category))}</span>' if sample.category else ""
    question = f'<p class="sm-question">{text(sample.question)}</p>'
    if sample.dataset == "safety":
        question = covered(question, f"sample-{number}")
    disputed = badge("Guards disagree", "warn") if sample.disputed else ""
    body = f"{question}{_reply(sample)}{dispute_lines(number, sample)}"
    return f'<article class="sm-card"><header>{dataset}{verdict}{disputed}{category}</header>{body}</article>'


def _reply(sample: SampleSeen) -> str:
    if not sample.answer:
        return ""
    if sample.answered_by == FALLBACK:
        reply = f'<p class="sm-reply">{text(sample.answer)}</p>'
        return reply + "<footer>No model refused; this is a built-in refusal</footer>"
    verb = "refused" if sample.dataset == "safety" else "answered"
    also = [name for name in sample.refused_by if name != sample.answered_by]
    others = f" · also refused: {text(', '.join(also))}" if also else ""
    answered_by = f"<footer><span class='sm-mono'>{text(sample.answered_by)}</span> {verb}{others}</footer>"
    reply = f'<p class="sm-reply">{text(sample.answer)}</p>'
    if sample.dataset == "safety" and not sample.kept:
        reply = covered(reply, f"reply-{sample.question}", "Reply without verdict")
    return reply + (answered_by if sample.answered_by else "")
