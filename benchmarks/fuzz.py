"""Fuzz everything that reads foreign text: `python -m benchmarks.fuzz --inputs N --seed S --json`.

Valid specs, prompt files, tables, event logs, safetensors headers, guard outputs, generated JSON, lineage files,
references and process marks are mutated and read. The same seed makes the same inputs.

- `crashes`: inputs that raised anything but a `SafeMergeError`, grouped by target and place, each with one input
  (base64).
- `slow`: inputs that took longer than `limit_s` in each of three tries, with their seconds.
- `refused`: how many inputs ended in a `SafeMergeError`; the others were read.
"""

from __future__ import annotations

import base64
import json
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command import make_parser
from benchmarks.fuzz_targets import Target, all_targets
from core.errors import SafeMergeError
from core.settings import load_settings

LIMIT_S = 1.0
_TOKENS = (
    b"\0", b"\n", b"---\n", b"\t", b"\r",
    b"<<: ", b"&a ", b"*a", b"!!float ''", b"!!bool x", b"!!timestamp ''", b"{", b"}", b"[", b"]",
    b'"', b"'", b"null", b"Infinity", b"NaN", b"-1", b"1e999", b"9" * 40, b"1:59:59", b"2024-99-99", b"true", b"~root",
    b"~nobody-here/x", b"\xff\xfe", b"\xed\xa0\x80", b"a" * 300, b",", b":", b": ", b"- ", b"[" * 200, b"{'a':" * 60,
    b"\\ud800", b"..", b"/", b"@", b"+", b"=", b"%", b"\xef\xbb\xbf",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (None, True, -1, 2**70, 1.5, float("inf"), "", "x" * 300, "\0", [], {}, [[]], {"a": None})


class Outcome(NamedTuple):
    """What came of one input.

    Attributes:
        crash: place and type of an exception that is no `SafeMergeError`; empty for none.
        refused: whether the input was refused.
        seconds: of reading.
    """

    crash: str
    refused: bool
    seconds: float


def mutated(examples: Sequence[bytes], rng: random.Random) -> bytes:
    """Return an example with some changes: bytes, tokens, pieces, and values of other types in JSON."""
    data = rng.choice(examples)
    if rng.random() < 0.4:
        data = _other_value(data, rng)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        place, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:place] + rng.choice(_TOKENS) + data[place:]
        elif kind == 1:
            data = data[:place] + rng.choice(_TOKENS) + data[end:]
        elif kind == 2:
            data = data[:place] + data[end:]
        elif kind == 3:
            data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        elif kind == 4:
            data = data[:end] + data[place:end] * rng.choice((1, 2, 50)) + data[end:]
        else:
            data = data[:place] + rng.choice(examples)[end:]
    return data[:200_000]


def _other_value(data: bytes, rng: random.Random) -> bytes:
    """The JSON in `data`, also behind the length field of a safetensors file, with one value of another type."""
    for start in (0, 8):
        head, _, rest = data[start:].partition(b"\n") if start == 0 else (data[start:].rstrip(b"\0"), b"", b"")
        try:
            document = json.loads(head)
        except ValueError:
            continue
        changed = json.dumps(_changed(document, rng)).encode()
        return changed + b"\n" + rest if start == 0 else len(changed).to_bytes(8, "little") + changed + bytes(24)
    return data


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(_VALUES)


def try_input(target: Target, data: bytes) -> Outcome:
    """Read one input, and note what came of it."""
    began = time.perf_counter()
    crash, refused = "", False
    try:
        target.read(data)
    except SafeMergeError:
        refused = True
    except (Exception, SystemExit) as error:  # noqa: BLE001 - every other exception is what we look for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        crash = f"{target.name}: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    return Outcome(crash, refused, time.perf_counter() - began)


def fuzz(targets: Sequence[Target], inputs: int, seed: int, limit_s: float = LIMIT_S) -> dict[str, Any]:
    """Try `inputs` inputs, the targets in turn as often as they say, and return the report."""
    rng = random.Random(seed)
    crashes: dict[str, dict[str, Any]] = {}
    slow: list[dict[str, Any]] = []
    tried, refused = Counter[str](), 0
    longest = 0.0
    for target in islice(_turns(targets), inputs):
        data = mutated(target.examples, rng)
        outcome = try_input(target, data)
        if outcome.seconds > limit_s:  # the least of three: the machine may have been busy
            again = min(try_input(target, data).seconds for _ in range(2))
            outcome = outcome._replace(seconds=min(outcome.seconds, again))
        tried[target.name] += 1
        refused += outcome.refused
        longest = max(longest, outcome.seconds)
        shown = base64.b64encode(data[:20_000]).decode()
        if outcome.crash:
            crashes.setdefault(outcome.crash, {"count": 0, "input": shown})["count"] += 1
        if outcome.seconds > limit_s:
            slow.append({"target": target.name, "seconds": round(outcome.seconds, 2), "input": shown})
    return {
        "inputs": inputs,
        "seed": seed,
        "limit_s": limit_s,
        "refused": refused,
        "longest_s": round(longest, 3),
        "tried": dict(tried),
        "crashes": crashes,
        "slow": slow,
    }


def _turns(targets: Sequence[Target]) -> Iterator[Target]:
    for turn in count():
        yield from (target for target in targets if turn % target.every == 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and print the report; returns 1 if an input crashed a reader or took too long."""
    parser = make_parser("fuzz", __doc__, tiny=False)
    parser.add_argument("--inputs", type=int, default=10_000, help="number of inputs over all targets")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(load_settings(), home=Path(folder) / "home")
        report = fuzz(all_targets(Path(folder), settings), options.inputs, options.seed)
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['inputs']:,} inputs, {report['refused']:,} refused, longest {report['longest_s']} s")
        for crash, found in report["crashes"].items():
            print(f"{found['count']:6d}  {crash}")
        print(f"{len(report['slow'])} slower than {report['limit_s']} s")
    return 1 if report["crashes"] or report["slow"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
