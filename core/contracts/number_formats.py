"""The number formats that a spec or a command may name, without imports, so that `--help` stays fast."""

from __future__ import annotations

from typing import Literal

NumberFormat = Literal["auto", "bfloat16", "float32"]
