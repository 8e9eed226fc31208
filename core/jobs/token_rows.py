"""Gives the experts of a pool the base's token rows where their own rows mean other tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from core.contracts.run_spec import PoolSpec
from core.models.loading import load_tokenizer, locate, tokenizer_or, vocabulary_size
from core.models.member_tokenizer import conflicting_rows
from core.models.references import parse_reference
from core.models.vocabulary import fit_vocabulary, keep_rows, token_tensors
from core.settings import Settings


class TokenRows:
    """The token rows of a pool.

    Attributes:
        settings: of this machine.
        source: the base, once an expert has had other rows; None before.
    """

    def __init__(self, spec: PoolSpec, live: Any, settings: Settings) -> None:
        self.settings = settings
        self.source: str | None = None
        self._spec, self._names = spec, token_tensors(live)

    def fit(self, name: str, state: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """An expert's tensors with the base's rows where the spec asks for it, and where ids name other tokens.

        `state` is returned unread where nothing has to change.

        Raises:
            ModelError: a tokenizer is missing or cannot be read.
        """
        reference = parse_reference(name, self.settings)
        fitted = state
        if self._spec.vocabulary == "base":
            original = dict(state)
            fitted = fit_vocabulary(original, base, vocabulary_size(reference, self.settings))
            if any(fitted[key] is not original[key] for key in original):
                self.source = self._spec.base
        if name == self._spec.base or locate(reference, self.settings).folder == self._base_folder:
            return fitted
        if conflicts := conflicting_rows(tokenizer_or(self._tokenizer, reference, self.settings), self._tokenizer):
            fitted, self.source = keep_rows(fitted, base, self._names, conflicts), self._spec.base
        return fitted

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(parse_reference(self._spec.base, self.settings), self.settings)

    @property
    def _base_folder(self) -> Path:
        return locate(parse_reference(self._spec.base, self.settings), self.settings).folder
