"""Tools for validating specs: a text that must be a row of a table, and refusals with a stable kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

STORED = {"stored": True}
"""Validation context of the spec of a run, which an earlier version may have written."""


def is_stored(info: ValidationInfo[Any]) -> bool:
    """Whether the spec of a run is read: removed names and keys are then accepted (`core.contracts.removed`)."""
    return info.context is not None and bool(info.context.get("stored"))


class Refusal(NamedTuple):
    """Why a value is refused.

    Attributes:
        kind: stable snake_case name, which becomes `SpecProblem.kind`; the message may change.
        message: what is wrong and what to do.
    """

    kind: str
    message: str

    def error(self, prefix: str = "") -> PydanticCustomError:
        """The refusal as an error that a pydantic validator raises."""
        return PydanticCustomError(self.kind, "{message}", {"message": f"{prefix}{self.message}"})


@dataclass(frozen=True)
class OneOf:
    """Marks a text that must be one of a table's names: `Annotated[str, OneOf(names)]`.

    Attributes:
        names: returns the names. It is called for each validation, so that a row added to the table counts at once.
        removed: returns names of earlier versions, and why each is refused; the spec of a run may have them.
    """

    names: Callable[[], Iterable[str]]
    removed: Callable[[], Mapping[str, str]] = dict

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.names())}

    def _check(self, value: str, info: ValidationInfo[Any]) -> str:
        known, removed = tuple(self.names()), self.removed()
        if value in known or (value in removed and is_stored(info)):
            return value
        if value in removed:
            raise Refusal("removed_name", removed[value]).error()
        raise Refusal("unknown_name", f"'{value}' is unknown; choose one of {', '.join(known)}").error()
