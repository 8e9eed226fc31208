"""Record a finished run of the demo pool for the Story tab: `python -m core.demo.record RUN_FOLDER`.

The command copies the run's log without its training questions, chooses one example prompt of each kind by a rule, and
has the pool's members and both merges reply to the harmless ones. It merges again from the recipes of the log and
checks the hashes of the weights. To harmful prompts it generates nothing: it takes the measured replies, whose text is
stored only where the guard judged it safe.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from core.contracts.events import CandidateScored, Event, Finished, RunStarted, SampleSeen
from core.contracts.questions import Question
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec, load_spec
from core.demo.facts import multiple_choice
from core.demo.recording import DOMAIN_ONLY, RECORDED, Example, RecordedReply, Recording
from core.durable import write_atomic
from core.errors import RunError, SafeMergeError
from core.evaluation.replies import ReplyRow, read_replies
from core.runs.folder import RunFolder
from core.runs.replay import read_replay
from core.settings import ASSETS, Settings, load_settings

LEFT_OUT = (SampleSeen,)
SHORT = 60
"""Most characters of an example prompt."""
QUESTIONS = 12
"""Questions and look-alikes that every model answers; the first that fits the rule is shown."""

Reply = Callable[[str, Sequence[str]], list[str]]
"""Returns the replies of a model, named as in the results, to some prompts."""


class Names(NamedTuple):
    """The models of the story, as the results name them."""

    aligned: str
    expert: str
    domain_only: str
    merge: str


class Measured(NamedTuple):
    """A finished run: its events, its spec, and the measured replies of each model."""

    events: tuple[Event, ...]
    spec: RunSpec
    replies: Mapping[str, Sequence[ReplyRow]]

    @property
    def models(self) -> Sequence[ModelResult]:
        """The run's results."""
        return next(event for event in self.events if isinstance(event, Finished)).result.models

    @property
    def names(self) -> Names:
        """The models of the story."""
        parents = [model.name for model in self.models if model.role == "parent"]
        merge = next(model.name for model in self.models if model.role == "merged")
        return Names(parents[0], parents[1], DOMAIN_ONLY, merge)


def read_run(folder: RunFolder) -> Measured:
    """Read a run of the demo pool.

    Raises:
        RunError: it is not finished, or lacks the domain-only search (code `not-recordable`).
    """
    replay, spec = read_replay(folder), folder.read_spec()
    finished = replay.finished
    if finished is None or not isinstance(spec, RunSpec) or DOMAIN_ONLY not in spec.search.compare:
        raise RunError(
            f"{folder.path} is no finished run with the baseline {DOMAIN_ONLY}.",
            "Run `python -m core demo` first.",
            code="not-recordable",
        )
    names = [model.name for model in finished.result.models]
    return Measured(replay.events, spec, read_replies(folder.path / "replies", names))


def harmful_example(run: Measured) -> Example:
    """The first short unsafe test prompt that the aligned model and the merge refuse, and the other two do not."""
    rows = {name: [row for row in run.replies[name] if row.asked == "harmful"] for name in run.names}
    wanted = dict(zip(run.names, (True, False, False, True), strict=True))
    alike = [i for i in range(len(rows[run.names.aligned])) if all(rows[n][i].refusal is wanted[n] for n in run.names)]
    shown = next(i for i in alike if len(rows[run.names.aligned][i].prompt) <= SHORT)
    row = rows[run.names.aligned][shown]
    refused = {name: sum(row.refusal for row in rows[name]) for name in run.names}
    return Example(
        kind="harmful",
        prompt=row.prompt,
        category=row.category,
        rule=f"The first unsafe test prompt of at most {SHORT} characters that the aligned parent and the safety-aware "
        "merge refuse, and the expert and the domain-only merge do not.",
        shows=f"The same holds for {len(alike)} of {len(rows[run.names.aligned])} unsafe test prompts. The aligned "
        f"parent refuses {refused[run.names.aligned]} of them, the domain-only merge {refused[run.names.domain_only]}, "
        f"the safety-aware merge {refused[run.names.merge]}.",
        replies={name: RecordedReply(response=_safe(rows[name][shown]), refusal=wanted[name]) for name in run.names},
    )


def harmless_example(run: Measured, reply: Reply) -> Example:
    """The first short harmless look-alike that all models answer, with longer replies than the measured ones."""
    rows = {name: [row for row in run.replies[name] if row.asked == "benign"] for name in run.names}
    first = rows[run.names.aligned]
    shown = next(
        i
        for i, row in enumerate(first)
        if len(row.prompt) <= SHORT and not any(rows[name][i].refusal or rows[name][i].degenerate for name in run.names)
    )
    answered = {name: sum(not row.refusal for row in rows[name]) for name in run.names}
    prompt = first[shown].prompt
    return Example(
        kind="harmless",
        prompt=prompt,
        category=first[shown].category,
        rule=f"The first harmless look-alike of at most {SHORT} characters that all four models answer.",
        shows=f"Of {len(first)} harmless look-alikes the aligned parent answers {answered[run.names.aligned]}, the "
        f"domain-only merge {answered[run.names.domain_only]}, the safety-aware merge {answered[run.names.merge]}.",
        replies={name: RecordedReply(response=reply(name, [prompt])[0], refusal=False) for name in run.names},
    )


def domain_example(run: Measured, reply: Reply) -> Example:
    """The first test question that the expert answers correctly and the aligned model incorrectly."""
    questions = multiple_choice("chemistry", "test")[:QUESTIONS]
    prompts = [question.question for question in questions]
    texts = {name: reply(name, prompts) for name in run.names}
    right = {name: [holds_answer(text, q) for text, q in zip(texts[name], questions, strict=True)] for name in texts}
    shown = next(i for i in range(QUESTIONS) if right[run.names.expert][i] and not right[run.names.aligned][i])
    return Example(
        kind="domain",
        prompt=prompts[shown],
        category="chemistry",
        rule="The first test question that the chemistry expert answers correctly and the aligned parent incorrectly.",
        shows=f"Of the first {QUESTIONS} test questions the aligned parent answers {sum(right[run.names.aligned])} "
        f"correctly, the expert {sum(right[run.names.expert])}, the domain-only merge "
        f"{sum(right[run.names.domain_only])}, the safety-aware merge {sum(right[run.names.merge])}.",
        replies={
            name: RecordedReply(response=texts[name][shown], refusal=False, right=right[name][shown])
            for name in run.names
        },
    )


def holds_answer(reply: str, question: Question) -> bool:
    """Whether a reply holds the last word of the right answer, which is the fact: `16`, `Paris`."""
    fact = question.choices[question.answer].rstrip(".").split()[-1]
    return fact in reply.replace(".", " ").replace(",", " ").split()


def write_recording(target: Path, run: Measured, about: Recording) -> None:
    """Write spec, log and description; the log has no training questions."""
    target.mkdir(parents=True, exist_ok=True)
    kept = [event for event in run.events if not isinstance(event, LEFT_OUT)]
    write_atomic(target / "spec.yaml", run.spec.to_yaml())
    write_atomic(target / "events.jsonl", "".join(event.model_dump_json() + "\n" for event in kept))
    write_atomic(target / "recording.json", about.model_dump_json(indent=2) + "\n")


def describe_machine() -> str:
    """The hardware of this machine: cores, architecture, memory and GPU."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), {memory:.0f} GB of memory, {gpu}"


def describe_command(spec: RunSpec) -> str:
    """The command that repeats the run."""
    demo = load_spec(ASSETS / "specs" / "demo.yaml")
    return "python -m core demo" if spec == demo else "python -m core run spec.yaml --out DIR"


def record(folder: RunFolder, target: Path, machine: str, settings: Settings) -> Recording:
    """Make the recording of a run; raises what reading the run and loading its pool raise."""
    from core.demo.replaying import ReplayedPool

    run = read_run(folder)
    pool = ReplayedPool(run.spec, run.models, settings)
    started = next(event for event in run.events if isinstance(event, RunStarted))
    candidates = [e for e in run.events if isinstance(e, CandidateScored) and e.search == DOMAIN_ONLY and not e.failure]
    about = Recording(
        date=datetime.fromtimestamp(started.at, UTC).date().isoformat(),
        machine=machine,
        command=describe_command(run.spec),
        made_by="python -m core.demo.record RUN_FOLDER",
        left_out=("sample_seen",),
        scored_later=dict(pool.refusals_begun(candidates, folder.data_path("safety"))),
        examples=(harmful_example(run), harmless_example(run, pool.reply), domain_example(run, pool.reply)),
    )
    write_recording(target, run, about)
    return about


def _safe(row: ReplyRow) -> str | None:
    return row.response if row.safe else None


def _lines(about: Recording) -> Iterator[str]:
    for example in about.examples:
        yield f"{example.kind}: {example.rule} {example.shows}"


def main(argv: Sequence[str]) -> int:
    """Record a run; 1 if it cannot be recorded."""
    parser = argparse.ArgumentParser(prog="python -m core.demo.record", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="a finished run of the demo pool")
    parser.add_argument("--out", type=Path, default=RECORDED, help="where to write the recording")
    parser.add_argument("--machine", help="hardware of the run (default: of this machine)")
    options = parser.parse_args(argv)
    try:
        folder = RunFolder(options.folder.resolve())
        about = record(folder, options.out, options.machine or describe_machine(), load_settings())
    except SafeMergeError as error:
        sys.stderr.write(f"Error: {error.message}\n{error.hint}\n")
        return 1
    sys.stdout.write("\n".join([*_lines(about), f"Recorded in {options.out}", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
