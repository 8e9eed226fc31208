"""Renders chat templates. A template is a program from the Hub, so most run in a process with limits.

Templates whose parts only copy messages, such as ChatML, are rendered here: their time and output are bounded by their
size (`is_bounded`). Every other one is rendered by one long-lived process (`core.models.template_worker`), with limits
on time, memory and output. A template that exceeds a limit ends that process; the next render starts another one.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from core.errors import ModelError
from core.settings import REPOSITORY

TIME_LIMIT_S = 5.0
"""Longest render; usual templates take less than a millisecond."""
START_LIMIT_S = 120.0
"""Longest start of the process, which imports transformers' utilities, on a busy machine."""
MAX_CHARACTERS = 2_000_000
"""Longest rendered text."""
_MAX_BOUNDED_CHARACTERS = 20_000
_PLAIN_NODES = frozenset(
    {"Template", "Output", "TemplateData", "If", "CondExpr", "For", "Name", "Const", "Getattr", "Getitem", "Slice"}
    | {"Compare", "Operand", "And", "Or", "Not", "Test", "Filter", "Concat", "Add", "Neg"}
)
_PLAIN_FILTERS = {"trim", "length", "upper", "lower", "capitalize", "first", "last", "string", "int"}
_HINT = "Choose another model, or another revision of it."


def apply_template(tokenizer: Any, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
    """The text that the tokenizer's chat template makes of `messages`.

    Args:
        tokenizer: with a chat template.
        messages: chat messages.
        variables: what else the template reads, such as `add_generation_prompt`.

    Raises:
        jinja2.TemplateError: the template refuses the conversation.
        ModelError: the template exceeded a limit (code `chat-template-limit`), or failed (`chat-template-fails`).
        ValueError: the tokenizer has several named templates, and none is the default.
    """
    template = tokenizer.get_chat_template()
    if is_bounded(template):
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **variables))
    return _worker().render(template, list(messages), {**tokenizer.special_tokens_map, **variables})


@lru_cache(maxsize=64)
def is_bounded(template: str) -> bool:
    """Whether a template can only copy parts of the messages, so that it ends soon with a short text.

    It has no assignments, calls, macros, ranges or products, no loop but one over `messages`, and no loop inside it.
    """
    from jinja2 import Environment, TemplateError, nodes

    if len(template) > _MAX_BOUNDED_CHARACTERS:
        return False
    try:
        tree = Environment().parse(template)
    except (TemplateError, RecursionError):
        return False
    for node in [tree, *tree.find_all(nodes.Node)]:
        if type(node).__name__ not in _PLAIN_NODES:
            return False
        if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            return False
        if isinstance(node, nodes.Filter) and node.name not in _PLAIN_FILTERS:
            return False
        if isinstance(node, nodes.For):
            plain = isinstance(node.iter, nodes.Name) and node.iter.name == "messages" and not node.recursive
            if not plain or any(
                isinstance(part, nodes.For) or part.find(nodes.For) for part in (*node.body, *node.else_)
            ):
                return False
    return True


class TemplateWorker:
    """The process that renders templates; safe to use from several threads.

    Args:
        time_limit_s: longest render.
    """

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, template: str, messages: list[dict[str, Any]], variables: dict[str, Any]) -> str:
        """Render a template; raises as `apply_template` does."""
        from jinja2 import TemplateError

        plain = {name: value if _is_json(value) else str(value) for name, value in variables.items()}
        asked = {"template": template, "messages": messages, "variables": plain, "seconds": self._time_limit_s}
        with self._lock:
            answer = self._ask(asked)
        if "text" in answer:
            return str(answer["text"])
        if answer["error"] == "template":
            raise TemplateError(answer["message"])
        if answer["error"] == "limit":
            raise ModelError(f"The model's chat template was stopped: {answer['message']}.", _HINT,
                             code="chat-template-limit")  # fmt: skip
        raise ModelError(f"The model's chat template fails: {answer['message']}.", _HINT, code="chat-template-fails")

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        process = self._process if self._process and self._process.poll() is None else self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._end()
            return {"error": "limit", "message": "its process has ended"}
        line = self._line(process, self._time_limit_s + 1)
        if line is None:
            self._end()
            return {"error": "limit", "message": f"it used more than {self._time_limit_s:g} s or too much memory"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "core.models.template_worker", str(MAX_CHARACTERS)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._line(process, START_LIMIT_S) is None:
            self._end()
            raise ModelError(
                "The process that renders chat templates did not start.", "Check the free memory and try again.",
                code="chat-template-worker",
            )  # fmt: skip
        return process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line of the process; None if it ends or the time is over."""
        assert process.stdout is not None
        end, parts = time.monotonic() + seconds, list[bytes]()
        while (left := end - time.monotonic()) > 0:
            if not select.select([process.stdout], [], [], left)[0]:
                return None
            part = process.stdout.read1(1 << 20)  # type: ignore[attr-defined]
            if not part:
                return None
            parts.append(part)
            if part.endswith(b"\n"):
                return b"".join(parts)
        return None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@cache
def _worker() -> TemplateWorker:
    """The process's one worker; it holds nothing of a visitor between two renders."""
    return TemplateWorker()


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)
