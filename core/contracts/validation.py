"""Tools for validating specs: a text that must be a row of a table, and refusals with a stable kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


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
    """

    names: Callable[[], Iterable[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.names())}

    def _check(self, value: str) -> str:
        known = tuple(self.names())
        if value not in known:
            raise Refusal("unknown_name", f"'{value}' is unknown; choose one of {', '.join(known)}").error()
        return value
