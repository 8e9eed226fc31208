"""The colours of all charts, on the page and in reports: told apart by people who see red and green alike, as every
kind of mark also has a shape of its own, and readable on light and dark ground.
"""

from __future__ import annotations

INK = "#6b7f8f"
SAFE = "#1b8f6a"
SKILL = "#c9781d"
HARM = "#d0453e"
PARENT = "#5d7890"
GENERATIONS = ("#4d86c6", "#7a6fc0", "#b3589f", "#dc5470", "#ec7b3c")
