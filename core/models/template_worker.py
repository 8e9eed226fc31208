"""The process that renders chat templates of the Hub: `python -m core.models.template_worker CHARACTERS`.

It reads one request a line, `{template, messages, variables, seconds}`, and answers with one line, `{text}` or `{error,
message}`. A template runs in Jinja's sandbox as transformers sets it up. The system stops a render that takes too long,
and refuses it memory beyond the limit.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, BinaryIO

MAX_MEMORY_BYTES = 1_000_000_000
"""Address space that a template may use beyond what the process has after its imports."""


def main() -> None:
    """Answer requests until the input ends; what libraries print goes nowhere."""
    longest = int(sys.argv[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import jinja2.sandbox  # noqa: F401 - imported before memory is limited
    from transformers.utils import chat_template_utils  # noqa: F401

    _limit_memory()
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin.buffer:
        _answer(answers, json.loads(line), longest)


def _answer(answers: BinaryIO, asked: dict[str, Any], longest: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process: no handler can interrupt one long operation
    signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
    answer = _render(asked, longest)
    signal.setitimer(signal.ITIMER_REAL, 0)
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _render(asked: dict[str, Any], longest: int) -> dict[str, str]:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        [text], _ = render_jinja_template(
            conversations=[asked["messages"]], chat_template=asked["template"], **asked["variables"]
        )
    except TemplateError as error:
        return {"error": "template", "message": str(error)[:1000]}
    except MemoryError:
        return {"error": "limit", "message": "it used too much memory"}
    except Exception as error:  # noqa: BLE001 - the template's own mistake, whatever it is; the asker raises it
        return {"error": "failed", "message": f"{type(error).__name__}: {str(error)[:1000]}"}
    if len(text) > longest:
        return {"error": "limit", "message": f"its text has more than {longest:,} characters"}
    return {"text": text}


def _limit_memory() -> None:
    """Limit the address space and the processor time, where the system can."""
    used = 0
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        used = int(statm.read().split()[0]) * resource.getpagesize()
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_MEMORY_BYTES, used + MAX_MEMORY_BYTES))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
