"""The error boundary of the page: every event handler is bound through here.

Binding passes a module-level handler its dependencies and leaves its other parameters, with their types, to gradio.
A handler returns `{component: value}`; outputs that it does not name keep their value. An explainable mistake
(`SafeMergeError`) becomes a warning, or a notice beside the form. Any other exception is a bug: its traceback is
logged, and the page reports an internal error.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import gradio as gr
from gradio.blocks import Block

from core.errors import SafeMergeError
from safemerge_ui.views.markup import error_notice, text

_LOG = logging.getLogger(__name__)
_BUG = SafeMergeError(
    "SafeMerge ran into an internal error.", "Nothing was lost. The server log has the details.", code="internal-error"
)

Handler = Callable[..., Any]
Updates = dict[Block, Any]
"""New values by component, as a handler returns them; an empty mapping changes nothing."""


def bind(handler: Handler, *dependencies: Any) -> Handler:
    """Return `handler` with its first parameters filled in; an error shows a warning and changes nothing."""

    def call(*arguments: Any) -> Any:
        try:
            return _for_gradio(handler(*dependencies, *arguments))
        except Exception as error:  # noqa: BLE001 - the UI boundary
            return warn(_explain(error))

    def stream(*arguments: Any) -> Iterator[Any]:
        try:
            for updates in handler(*dependencies, *arguments):
                yield _for_gradio(updates)
        except Exception as error:  # noqa: BLE001 - the UI boundary
            yield warn(_explain(error))

    bound: Any = stream if inspect.isgeneratorfunction(handler) else call
    bound.refuse = warn
    return _with_signature(bound, handler, len(dependencies))


def bind_with_notice(handler: Handler, notice: gr.HTML, *dependencies: Any) -> Handler:
    """Bind a handler of a form: an error fills `notice`, and success clears it.

    Args:
        handler: returns `Updates`.
        notice: must be among the outputs of the event.
        dependencies: values of the handler's first parameters.
    """

    def call(*arguments: Any) -> Updates:
        try:
            return {notice: "", **handler(*dependencies, *arguments)}
        except Exception as error:  # noqa: BLE001 - the UI boundary
            return refuse(_explain(error))

    def refuse(error: SafeMergeError) -> Updates:
        return {notice: error_notice(error)}

    call.refuse = refuse  # type: ignore[attr-defined]
    return _with_signature(call, handler, len(dependencies))


def bind_endpoint(function: Handler, *dependencies: Any) -> Handler:
    """Bind a function of the public interface: an error reaches the caller as text that ends with its code.

    gradio derives the types of parameters and result from the signature, so the names of types are resolved here.
    """
    hints = get_type_hints(function)
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in list(signature.parameters.values())[len(dependencies) :]
    ]

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*dependencies, *arguments)
        except Exception as error:  # noqa: BLE001 - the UI boundary
            return refuse(_explain(error))

    def refuse(explained: SafeMergeError) -> Any:
        message = f"{text(str(explained))} [{explained.code}]"
        raise gr.Error(message, print_exception=False) from None

    call.refuse = refuse  # type: ignore[attr-defined]
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=hints["return"]
    )
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": hints["return"]}
    return call


def _for_gradio(updates: Any) -> Any:
    """gradio takes an empty mapping for a value, so "nothing changes" becomes its own skip."""
    return gr.skip() if updates == {} else updates


def _explain(error: Exception) -> SafeMergeError:
    if isinstance(error, SafeMergeError):
        return error
    _LOG.error("A handler failed.", exc_info=error)
    return _BUG


def warn(error: SafeMergeError) -> Any:
    """Show an error as a warning, and return the update that changes nothing."""
    gr.Warning(text(error.hint), title=text(error.message))
    return gr.skip()


def _with_signature(call: Handler, handler: Handler, bound: int) -> Handler:
    """Show gradio the parameters that are not bound: it fills in requests and profiles by their types."""
    functools.update_wrapper(call, handler)
    signature = inspect.signature(handler)
    parameters = list(signature.parameters.values())[bound:]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call
