"""Computes the time of a whole 8B run on one H100 from its parts, with measured rates or labeled assumptions.

The run: a pair of 8B models, K = 200 + 200 pairs, 48 candidates, 200 unsafe and 200 harmless test prompts for the base,
the expert, the merge and one baseline, and a guard of 0.6B. Every part shows its arithmetic, and whether its rate was
measured. Assumed rates of the chip are the vendor's figures times a stated share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Sections = Mapping[str, Mapping[str, Any]]

LIMIT_S = 600.0
"""Target for the whole run in seconds."""
PARAMETERS, GUARD_PARAMETERS = 8.03e9, 0.6e9
PAIRS, CANDIDATES, MEASURED, PROMPTS = 400, 48, 4, 400
SAVED = 2
_PAIR_TOKENS = 120
_REPLY_TOKENS, _ROWS_AT_ONCE = 128, 40
_VERDICT_TOKENS = 700
_MERGED_BYTES = 6  # of each parameter: read from base and expert, and written


class Rate(NamedTuple):
    """A rate that the estimate uses.

    Attributes:
        value: in `unit`.
        unit: bytes or floating-point operations per second.
        measured: True if a GPU's result holds it.
    """

    value: float
    unit: str
    measured: bool


class Part(NamedTuple):
    """One part of the run: its seconds, the arithmetic, and the names of the rates that it uses."""

    name: str
    seconds: float
    arithmetic: str
    rates: tuple[str, ...]


ASSUMED = {
    "bandwidth": (2.7e12, "B/s"),  # 80 % of an H100's 3.35e12
    "merge": (1.35e12, "B/s"),  # two passes at that rate
    "matrix": (0.6 * 7e14, "FLOP/s"),  # the target's share of 70 % of the dense bf16 peak
    "disk": (2e9, "B/s"),
    "hash": (1.2e9, "B/s"),
}
"""Rates where no GPU's result has them, each in its unit."""


def rates_of(sections: Sections) -> dict[str, Rate]:
    """The rates of a GPU's result (`python -m benchmarks.gpu`), and assumptions for those that it lacks."""
    limits, score = sections.get("limits", {}), sections.get("8b/score", {})
    measured: dict[str, float] = {}
    if "copy_gbs" in limits:
        measured["bandwidth"] = limits["copy_gbs"] * 1e9
    if "ties" in (merge := sections.get("8b/merge", {})):
        measured["merge"] = _MERGED_BYTES * merge["parameters"] / merge["ties"]["s"]
    if "sha256_gbs" in limits:
        measured["hash"] = limits["sha256_gbs"] * 1e9
    if "product" in score and "best_matmul_tflops" in limits:
        measured["matrix"] = score["product"]["matmul_share"] * limits["best_matmul_tflops"] * 1e12
    return {
        name: Rate(measured.get(name, assumed), unit, name in measured) for name, (assumed, unit) in ASSUMED.items()
    }


def parts_of(rates: Mapping[str, Rate]) -> list[Part]:
    """The parts of the run, in order."""
    weights, guard = 2 * PARAMETERS, 2 * GUARD_PARAMETERS
    matrix, bandwidth, disk = (rates[name].value for name in ("matrix", "bandwidth", "disk"))
    scored = PAIRS * _PAIR_TOKENS * 2 * PARAMETERS
    merged = _MERGED_BYTES * PARAMETERS
    batches = -(-PROMPTS // _ROWS_AT_ONCE)
    judged = MEASURED * PROMPTS * _VERDICT_TOKENS * 2 * GUARD_PARAMETERS
    rows = [
        ("load", (2 * weights + guard) / disk, "2 x 16.1 GB + 1.2 GB read once", ("disk",)),
        ("merge", CANDIDATES * merged / rates["merge"].value, "48 TIES merges of 6 B per parameter", ("merge",)),
        ("score", CANDIDATES * scored / matrix, "48 x 400 pairs x 120 tokens x 2 FLOP per parameter", ("matrix",)),
        (
            "replies",
            MEASURED * batches * _REPLY_TOKENS * weights / bandwidth,
            "4 models x 10 batches x 128 steps, each reads the weights",
            ("bandwidth",),
        ),
        ("guard", judged / matrix, "4 x 400 replies x 700 tokens x 2 FLOP per parameter of 0.6B", ("matrix",)),
        ("hash", weights / rates["hash"].value, "the last of 4 hashes; the others run beside measuring", ("hash",)),
        ("save", SAVED * 2 * weights / disk, "2 merges written and read back", ("disk",)),
    ]
    return [Part(*row) for row in rows]


def estimate(sections: Sections) -> dict[str, Any]:
    """The estimate as a JSON object: seconds of each part and of the run, and which rates were measured."""
    rates = rates_of(sections)
    parts = parts_of(rates)
    seconds = sum(part.seconds for part in parts)
    return {
        "seconds": seconds,
        "limit_s": LIMIT_S,
        "all_measured": all(rate.measured for rate in rates.values()),
        "rates": {name: rate._asdict() for name, rate in rates.items()},
        "parts": [part._asdict() for part in parts],
    }


def estimate_table(result: Mapping[str, Any]) -> str:
    """The estimate as a table in Markdown, with its rates."""
    rows = ["| part | arithmetic | seconds | from |", "|---|---|---|---|"]
    for part in result["parts"]:
        known = all(result["rates"][name]["measured"] for name in part["rates"])
        origin = "measured rate" if known else "assumed rate"
        rows.append(f"| {part['name']} | {part['arithmetic']} | {part['seconds']:.0f} | {origin} |")
    rows.append(f"| all | | {result['seconds']:.0f} (target: {result['limit_s']:.0f}) | |")
    rates = [
        f"{name} {rate['value']:.2g} {rate['unit']} ({'measured' if rate['measured'] else 'assumed'})"
        for name, rate in result["rates"].items()
    ]
    return "\n".join([*rows, "", f"Rates: {', '.join(rates)}."])
