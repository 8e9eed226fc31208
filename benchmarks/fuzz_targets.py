"""What `benchmarks.fuzz` attacks: everything that reads text or files which SafeMerge did not write itself.

A target has valid examples, from which inputs are made by mutation, and a function that reads an input. Reading may
raise a `SafeMergeError`; any other exception is a defect.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from core.contracts.comparison_spec import any_spec_from_dict
from core.contracts.events import CandidateScored, Finished, Progress, RunStarted
from core.contracts.results import RunResult
from core.contracts.spec_files import parse_mapping
from core.data.parsing import parse_question
from core.data.prompts import read_prompts
from core.data.tables import read_rows
from core.evaluation.lineage import parents_in_card, parents_in_config
from core.guards import outputs
from core.models.files import FolderFiles, find_weights, read_weights
from core.models.references import parse_reference
from core.runs.event_tail import EventTail
from core.runs.folder import read_mark
from core.settings import ASSETS, Settings

_PARQUET_EVERY = 20
"""A Parquet file is first read in a process of its own, which takes a thousand times as long as any other input."""


class Target(NamedTuple):
    """One reader.

    Attributes:
        name: of the reader.
        examples: valid inputs.
        read: reads an input; raises only `SafeMergeError`.
        every: rounds of the targets in which it has one turn; more than 1 where reading starts a process.
    """

    name: str
    examples: tuple[bytes, ...]
    read: Callable[[bytes], object]
    every: int = 1


def all_targets(folder: Path, settings: Settings) -> list[Target]:
    """Return every target; those that read files write the input into `folder` first."""
    text = [
        Target("spec", _specs(), lambda data: any_spec_from_dict(parse_mapping(_text(data)))),
        Target("lineage", _CONFIGS, lambda data: parents_in_config(_text(data))),
        Target("card", _CARDS, lambda data: parents_in_card(_text(data))),
        Target("json repair", _REPLIES, lambda data: parse_question(_text(data))),
        Target("guard output", _OUTPUTS, lambda data: _read_outputs(_text(data))),
        Target("reference", _REFERENCES, lambda data: parse_reference(_text(data), settings)),
    ]
    return [*text, *_file_targets(folder, settings)]


def _file_targets(folder: Path, settings: Settings) -> Iterator[Target]:
    def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = folder / name

        def read_file(data: bytes) -> object:
            path.write_bytes(data)
            return read(path)

        return read_file

    for suffix, examples in _tables().items():
        every = _PARQUET_EVERY if suffix == "parquet" else 1
        prompts = of_file(f"prompts.{suffix}", lambda path: read_prompts(path))
        yield Target(f"prompts.{suffix}", examples, prompts, every)
        rows = of_file(f"table.{suffix}", lambda path: list(read_rows(path)))
        yield Target(f"table.{suffix}", examples, rows, every)
    yield Target("events", _logs(), of_file("events.jsonl", lambda path: EventTail(path).read_new()))
    yield Target("worker.json", _MARKS, of_file("worker.json", read_mark))
    model = folder / "model"
    model.mkdir(exist_ok=True)
    yield Target(
        "safetensors header", _headers(), of_file("model/model.safetensors", lambda _: _weights(model, settings))
    )
    index = folder / "indexed"
    index.mkdir(exist_ok=True)
    yield Target(
        "safetensors index",
        (json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode(),),
        of_file("indexed/model.safetensors.index.json", lambda _: find_weights(FolderFiles(index), "model", "fuzz")),
    )


def _weights(folder: Path, settings: Settings) -> object:
    return read_weights(FolderFiles(folder), "model", "fuzz", settings)


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


def _read_outputs(text: str) -> list[object]:
    readers = (
        outputs.read_llama_guard,
        outputs.read_qwen3guard,
        outputs.read_wildguard,
        outputs.read_granite_guardian,
        outputs.read_shieldgemma,
    )
    return [reader(text, text) for reader in readers]


def _specs() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((ASSETS / "specs").glob("demo*.yaml")))


def _logs() -> tuple[bytes, ...]:
    result = RunResult(spec={}, seconds=1.0, peak_memory_bytes=1, models=())
    events = [
        RunStarted(spec={"pool": {"base": "a/b"}}),
        Progress(phase="search", done=1, total=2, message="candidate 1"),
        CandidateScored(
            search="evomm",
            candidate=0,
            generation=0,
            recipe={},
            ce_safety=1.0,
            ce_expert=1.0,
            objective=1.3,
            seconds=1.0,
        ),
        Finished(result=result),
    ]
    lines = [event.model_dump_json() for event in events]
    return tuple(("\n".join(lines[:count]) + "\n").encode() for count in (1, 2, 3, 4))


def _tables() -> dict[str, tuple[bytes, ...]]:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"prompt": "How do I open a tin?", "category": "a"}, {"prompt": "What is gold, really?", "category": "b"}]
    lines = "\n".join(map(json.dumps, rows)).encode()
    turns = json.dumps({"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]})
    packed = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), packed)
    return {
        "jsonl": (lines, turns.encode()),
        "json": (json.dumps(rows).encode(), json.dumps({"data": rows}).encode(), turns.encode()),
        "csv": (b'prompt,category\n"How, do I open it?",a\nWhat is gold?,b\n', b"sep=;\nprompt;category\nx y;z\n"),
        "tsv": (b"prompt\tcategory\nWhat is gold?\tb\n",),
        "txt": (b"How do I open a tin?\nWhat is gold?\n", "\ufeffWas ist Gold?\n".encode("utf-16")),
        "parquet": (packed.getvalue(),),
    }


def _headers() -> tuple[bytes, ...]:
    tensors = {
        "__metadata__": {"format": "pt"},
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]},
        "model.norm.weight": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
    }
    header = json.dumps(tensors).encode()
    return (len(header).to_bytes(8, "little") + header + bytes(24),)


_CONFIGS = (
    b"merge_method: ties\nbase_model: org/base\nmodels:\n- {model: org/a, parameters: {weight: 1}}\n"
    b"- model: org/b+org/c\n",
    b"slices:\n- sources:\n  - {model: org/a, layer_range: [0, 32]}\n---\nname: inner\n"
    b"models: [{model: {model: {path: x/y}}}]\n",
)
_CARDS = (b"---\nbase_model: [org/a, org/b]\ntags: [merge]\n---\n# Card\n", b"---\nsafemerge_parents:\n- org/a\n---\n")
_REPLIES = (
    b'[{"Question": "How do I open a tin?", "Category": "Kitchen"}]',
    b'Sure:\n```json\n[{"question": "What is gold?"},]\n```',
    b"[{'Question': 'How do I open it?'",
)
_OUTPUTS = (
    b"unsafe\nS1, S10",
    b"Safety: Unsafe\nCategories: Violent\nRefusal: No",
    b"Harmful request: yes\nResponse refusal: no\nHarmful response: yes",
    b"<score> yes </score><confidence> High </confidence>",
    b"S1: Violent Crimes.\nNo",
)
_REFERENCES = (
    b"org/model",
    b"org/model@main",
    b"demo/aligned",
    b"org/base+org/lora",
    b"~/models/x",
    b"/models/x",
    b"./x",
)
_MARKS = (
    b'{"pid": 12, "start": "abc:123", "host": "h", "machine": "m", "boot": "b", "pid_namespace": "pid:[1]"}',
    b'{"pid": 12, "start": "abc:123"}',
)
