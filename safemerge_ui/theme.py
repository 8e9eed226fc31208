"""The theme of the page: gradio's variables for colors and type. Layout and views are styled in assets/css."""

from __future__ import annotations

import re

import gradio as gr
from gradio.themes.utils import sizes
from gradio.themes.utils.colors import Color

from core.settings import ASSETS

CSS = ASSETS / "css" / "safemerge.css"
SANS = ("Avenir Next", "Segoe UI", "Helvetica Neue", "Arial", "Liberation Sans", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Consolas", "Liberation Mono", "monospace")

PINE = Color(
    name="pine",
    c50="#edf7f3",
    c100="#d5ece3",
    c200="#abd9c8",
    c300="#78c0a7",
    c400="#43a283",
    c500="#1b8467",
    c600="#116b53",
    c700="#0e5644",
    c800="#0d4537",
    c900="#0b392e",
    c950="#05211a",
)
SLATE = Color(
    name="slate-blue",
    c50="#f5f7f9",
    c100="#ebeff3",
    c200="#dbe2e9",
    c300="#c0ccd6",
    c400="#8b9cab",
    c500="#647686",
    c600="#4b5c6b",
    c700="#364552",
    c800="#1e2a34",
    c900="#141d25",
    c950="#0d141a",
)


VARIABLES = {
    "body_background_fill": "#f2f5f7",
    "body_background_fill_dark": "#0d141a",
    "body_text_color": "#17232d",
    "body_text_color_dark": "#e3eaf0",
    "body_text_color_subdued": "#566876",
    "body_text_color_subdued_dark": "#9aabb9",
    "block_background_fill": "transparent",
    "block_background_fill_dark": "transparent",
    "block_border_width": "0px",
    "block_border_width_dark": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "block_label_background_fill": "transparent",
    "block_label_background_fill_dark": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "*body_text_color_subdued",
    "block_title_text_color": "*body_text_color",
    "block_title_text_color_dark": "*body_text_color",
    "block_title_text_size": "0.86rem",
    "block_title_text_weight": "600",
    "block_info_text_color": "*body_text_color_subdued",
    "block_info_text_size": "0.8rem",
    "border_color_primary": "#d5dee5",
    "border_color_primary_dark": "#2a3844",
    "panel_background_fill": "transparent",
    "panel_background_fill_dark": "transparent",
    "background_fill_primary": "#ffffff",
    "background_fill_primary_dark": "#141d25",
    "background_fill_secondary": "#f7f9fa",
    "background_fill_secondary_dark": "#19242d",
    "input_background_fill": "#ffffff",
    "input_background_fill_dark": "#101820",
    "input_border_color": "#c6d2db",
    "input_border_color_dark": "#32424f",
    "input_border_width": "1px",
    "input_border_width_dark": "1px",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 3px rgba(27, 132, 103, 0.22)",
    "input_shadow_focus_dark": "0 0 0 3px rgba(67, 162, 131, 0.3)",
    "input_border_color_focus": "*primary_500",
    "input_border_color_focus_dark": "*primary_400",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_dark": "*primary_500",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_400",
    "button_primary_text_color": "#ffffff",
    "button_secondary_background_fill": "#ffffff",
    "button_secondary_background_fill_dark": "#1b2731",
    "button_secondary_background_fill_hover": "#eef3f6",
    "button_secondary_background_fill_hover_dark": "#22313d",
    "button_secondary_border_color": "#c6d2db",
    "button_secondary_border_color_dark": "#32424f",
    "button_secondary_text_color": "*body_text_color",
    "button_border_width": "1px",
    "button_border_width_dark": "1px",
    "button_primary_border_color": "transparent",
    "button_primary_border_color_dark": "transparent",
    "button_large_text_weight": "600",
    "button_small_text_weight": "500",
    "button_transform_active": "translateY(1px)",
    "checkbox_background_color_selected": "*primary_600",
    "checkbox_background_color_selected_dark": "*primary_500",
    "checkbox_border_color_selected": "*primary_600",
    "checkbox_border_color": "#9fb0bd",
    "checkbox_border_color_dark": "#52667a",
    "checkbox_label_background_fill": "#ffffff",
    "checkbox_label_background_fill_dark": "#19242d",
    "checkbox_label_background_fill_selected": "*primary_50",
    "checkbox_label_background_fill_selected_dark": "#143429",
    "checkbox_label_border_color": "#c6d2db",
    "checkbox_label_border_color_dark": "#32424f",
    "checkbox_label_border_color_selected": "*primary_500",
    "checkbox_label_border_color_selected_dark": "*primary_500",
    "checkbox_label_border_width": "1px",
    "checkbox_label_text_color_selected": "*body_text_color",
    "slider_color": "*primary_600",
    "slider_color_dark": "*primary_400",
    "link_text_color": "*primary_700",
    "link_text_color_dark": "*primary_300",
}
"""gradio's theme variables; those that end in `_dark` are for the dark theme."""


def compact_css() -> str:
    """Return the style sheet without comments and indentation, because gradio writes it into every page."""
    text = re.sub(r"/\*.*?\*/", "", CSS.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"\s*([{};])\s*", r"\1", text)).strip()


def make_theme() -> gr.themes.Base:
    """Return the theme; it uses the fonts of the visitor's system, so that nothing is fetched from another site."""
    theme = gr.themes.Base(
        primary_hue=PINE,
        secondary_hue=PINE,
        neutral_hue=SLATE,
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        spacing_size=sizes.spacing_md,
        font=SANS,
        font_mono=MONO,
    )
    theme.name = "safemerge"
    return theme.set(**VARIABLES)
