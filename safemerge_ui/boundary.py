"""The one place where errors meet the page: every handler is bound through here.

Binding hands a module-level handler what it depends on and leaves the rest of its parameters, with their types, to
gradio. A mistake that can be explained becomes a warning or a notice beside the form; a defect of ours is logged with
its traceback and the page says that it is ours.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from core.errors import SafeMergeError
from safemerge_ui.views.markup import error_notice, text

_LOG = logging.getLogger(__name__)
_DEFECT = SafeMergeError(
    "Something went wrong inside SafeMerge.", "The log of the program says where; nothing was lost."
)

Handler = Callable[..., Any]


def bind(handler: Handler, *dependencies: Any) -> Handler:
    """`handler` with its first parameters filled in; on an error it warns and changes nothing."""

    def call(*arguments: Any) -> Any:
        try:
            return handler(*dependencies, *arguments)
        except Exception as error:  # noqa: BLE001 - the UI boundary
            return _warn(_explain(error))

    def stream(*arguments: Any) -> Iterator[Any]:
        try:
            yield from handler(*dependencies, *arguments)
        except Exception as error:  # noqa: BLE001 - the UI boundary
            yield _warn(_explain(error))

    chosen = stream if inspect.isgeneratorfunction(handler) else call
    return _with_signature(chosen, handler, len(dependencies))


def bind_with_notice(handler: Handler, *dependencies: Any, outputs: int) -> Handler:
    """As `bind`, for a form: the first output is a notice, emptied on success and filled on an error.

    Args:
        outputs: how many values the handler itself returns, after the notice.
    """

    def call(*arguments: Any) -> tuple[Any, ...]:
        try:
            values = handler(*dependencies, *arguments)
        except Exception as error:  # noqa: BLE001 - the UI boundary
            return (error_notice(_explain(error)), *[gr.skip()] * outputs)
        return ("", *values) if outputs != 1 else ("", values)

    return _with_signature(call, handler, len(dependencies))


def _explain(error: Exception) -> SafeMergeError:
    if isinstance(error, SafeMergeError):
        return error
    _LOG.error("A handler failed.", exc_info=error)
    return _DEFECT


def _warn(error: SafeMergeError) -> Any:
    gr.Warning(text(error.hint), title=text(error.message))
    return gr.skip()


def _with_signature(call: Handler, handler: Handler, given: int) -> Handler:
    """Show gradio the parameters that are left: it fills in requests and profiles by their types."""
    functools.update_wrapper(call, handler)
    signature = inspect.signature(handler)
    left = list(signature.parameters.values())[given:]
    call.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    return call
