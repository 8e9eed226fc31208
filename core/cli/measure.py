"""`align`, `overrefusal` and `accuracy`: measure one model, without a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from core.cli.models import load_pair
from core.cli.output import format_rate, print_json, results_only, say
from core.contracts.number_formats import NumberFormat
from core.settings import Settings

if TYPE_CHECKING:
    from core.data.prompts import Prompt
    from core.guards.protocol import Guard

MAX_FEWSHOT = 100


class _Replies(NamedTuple):
    """Prompts, the model's replies to them, and the guard that judges."""

    prompts: list[Prompt]
    replies: list[str]
    guard: Guard


def add_commands(commands: Any) -> None:
    """Add the measuring commands to the command line."""
    align = commands.add_parser("align", help="measure the share of unsafe prompts that a model answers safely")
    _add_prompt_options(align)
    align.set_defaults(handler=_align)
    over = commands.add_parser("overrefusal", help="measure the share of harmless prompts that a model refuses")
    _add_prompt_options(over)
    over.set_defaults(handler=_over_refusal)
    accuracy = commands.add_parser(
        "accuracy", help="measure the share of benchmark questions that a model answers correctly"
    )
    _add_model_options(accuracy)
    add_accuracy_options(accuracy, required=True)
    accuracy.set_defaults(handler=_accuracy)


def add_accuracy_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options of the accuracy benchmark; with `required`, a suite or tasks must be named."""
    what = parser.add_mutually_exclusive_group(required=required)
    what.add_argument("--suite", metavar="NAME", help="a named group of tasks for accuracy")
    what.add_argument("--tasks", type=names_of, metavar="a,b", help="lm-eval task names for accuracy")
    parser.add_argument("--include-path", type=Path, metavar="DIR", help="folder with more lm-eval task files")
    parser.add_argument("--num-fewshot", type=_examples, metavar="N", help="examples before each question")
    parser.add_argument(
        "--chat-template",
        action=argparse.BooleanOptionalAction,
        help="apply the chat template to questions, or not (default: as the task says)",
    )


def accuracy_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_accuracy_options` as keys of an `EvaluationSpec`."""
    return {
        "suite": arguments.suite,
        "tasks": tuple(arguments.tasks or ()),
        "include_path": str(arguments.include_path) if arguments.include_path else None,
        "chat_template": arguments.chat_template,
        "num_fewshot": arguments.num_fewshot,
    }


def add_dtype_option(parser: argparse.ArgumentParser) -> None:
    """Add `--dtype`, the number format of models and guards."""
    what = "number format of the model and of a guard model (default: auto, the one that suits this machine)"
    parser.add_argument("--dtype", choices=get_args(NumberFormat), default="auto", help=what)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="Hub id, id@revision, folder, base+lora, or demo/NAME")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="maximum number of prompts, or of questions per task"
    )
    add_dtype_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _add_prompt_options(parser: argparse.ArgumentParser) -> None:
    _add_model_options(parser)
    what = "a table or a text file, one prompt per row; or beavertails, xstest, or HUB_ID:SPLIT of a dataset on the Hub"
    parser.add_argument("--prompts", required=True, metavar="FILE", help=what)
    parser.add_argument("--column", metavar="NAME", help="column of the prompts in the file (default: a usual name)")
    parser.add_argument(
        "--guard", required=True, metavar="G", help="the guard that judges replies, for example phrases"
    )


def positive(text: str) -> int:
    """Parse a number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _examples(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_FEWSHOT:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to {MAX_FEWSHOT}")
    return value


def names_of(text: str) -> list[str]:
    """Parse names that are separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no name is given")
    return names


def _align(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.evaluation.alignment import judge_alignment

    with results_only():
        report = judge_alignment(*_replies(arguments, settings))
    rates = {"alignment": report.alignment, "refusal": report.refusal, "degenerate": report.degenerate}
    _print_rates(arguments, report.guard, rates)
    for agreement in report.agreement:
        kappa = "not defined" if agreement.kappa is None else f"{agreement.kappa:.2f}"
        shared = f"same answer on {format_rate(agreement.agree)}"
        say(f"{agreement.guard}, {agreement.question}: {shared}, Cohen's kappa {kappa}")
    if report.unknown:
        say(f"The guard gave no verdict on {report.unknown} replies; they count as not safe.")
    return 0


def _over_refusal(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.evaluation.alignment import judge_over_refusal

    with results_only():
        report = judge_over_refusal(*_replies(arguments, settings))
    _print_rates(arguments, report.guard, {"over_refusal": report.over_refusal, "degenerate": report.degenerate})
    return 0


def _accuracy(arguments: argparse.Namespace, settings: Settings) -> int:
    with results_only():
        from core.contracts.run_spec import EvaluationSpec
        from core.evaluation.suites import suites_to_measure
        from core.preflight.task_check import check_tasks

        (suite,) = suites_to_measure(EvaluationSpec(**accuracy_fields(arguments)))
        if arguments.tasks:
            check_tasks(suite.tasks, suite.include_path)
        from core.evaluation.accuracy import measure_accuracy

        model, tokenizer = load_pair(arguments.model, settings, arguments.dtype)
        chat = arguments.chat_template
        accuracy = measure_accuracy(
            model, tokenizer, suite.tasks, suite.include_path, arguments.limit, chat, suite.num_fewshot
        )
    if arguments.json:
        rates = {task: rate.model_dump() for task, rate in accuracy.items()}
        print_json({"model": arguments.model, "accuracy": rates})
    else:
        for task, rate in accuracy.items():
            print(f"{task}: {format_rate(rate)}")
    return 0


def _replies(arguments: argparse.Namespace, settings: Settings) -> _Replies:
    """Generate the replies; files and names are checked before the model is loaded."""
    from core.contracts.data_spec import ColumnsSpec
    from core.data.prompt_sets import read_prompt_set
    from core.evaluation.alignment import MAX_NEW_TOKENS
    from core.guards.registry import load_guard
    from core.models.generation import generate

    columns = ColumnsSpec(question=arguments.column)
    prompts, _ = read_prompt_set(arguments.prompts, arguments.limit, settings, columns)
    guard = load_guard(arguments.guard, settings, arguments.dtype)
    model, tokenizer = load_pair(arguments.model, settings, arguments.dtype)
    conversations = [[{"role": "user", "content": prompt.prompt}] for prompt in prompts]
    replies = [""] * len(prompts)
    answers = generate(model, tokenizer, conversations, max_new_tokens=MAX_NEW_TOKENS)
    for done, (index, reply) in enumerate(answers, start=1):
        replies[index] = reply
        say(f"{done}/{len(prompts)} replies")
    return _Replies(prompts, replies, guard)


def _print_rates(arguments: argparse.Namespace, guard: str, rates: dict[str, Any]) -> None:
    if arguments.json:
        values = {name: rate.model_dump() for name, rate in rates.items()}
        print_json({"model": arguments.model, "guard": guard, **values})
        return
    for name, rate in rates.items():
        print(f"{name.replace('_', '-')}: {format_rate(rate)}")
