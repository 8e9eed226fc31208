"""The colors of all charts, on the page and in reports, readable on light and dark backgrounds.

People with red-green color blindness can tell them apart; each kind of mark also has its own shape.
"""

from __future__ import annotations

INK = "#6b7f8f"
SAFE = "#1b8f6a"
SKILL = "#c9781d"
HARM = "#d0453e"
PARENT = "#5d7890"
GENERATIONS = ("#4d86c6", "#7a6fc0", "#b3589f", "#dc5470", "#ec7b3c")
