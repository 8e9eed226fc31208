"""The page's `gr.Blocks`, whose configuration holds what a browser uses and whose functions are private unless listed.

gradio describes every function and every component for API clients and puts the description into the page. Here only
the public functions of `safemerge_ui.api` are described.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import gradio as gr

_DESCRIPTIONS = ("api_info", "api_info_as_input", "api_info_as_output", "example_inputs")
_API_COMPONENT = "api"
_UNUSED_IF_EMPTY = (
    "time_limit", "render_id", "rendered_in", "scroll_to_output", "trigger_only_on_success", "trigger_only_on_failure",
    "trigger_after", "js_implementation", "api_description", "show_progress_on", "collects_event_data",
)  # fmt: skip
"""Properties of a function that browsers read as absent when they are null or false."""
_CLASS_CHARACTERS = 8


class SlimBlocks(gr.Blocks):
    """A page that sends no descriptions of private functions."""

    def get_config_file(self) -> Any:
        """The configuration for browsers and clients, without what neither of them uses.

        Left out are the descriptions of components that no public function has, and the list of properties that
        survive a rendering, which matters for components with a key, and null or false properties that browsers read as
        absent. A component's class is named by the beginning of
        its hash: browsers use it to tell classes apart.
        """
        config = super().get_config_file()
        for component in config["components"]:
            slim: dict[str, Any] = component
            if slim["type"] != _API_COMPONENT:
                for name in _DESCRIPTIONS:
                    slim.pop(name, None)
            if slim.get("key") is None:
                slim["props"].pop("preserved_by_key", None)
            if slim.get("component_class_id"):
                slim["component_class_id"] = slim["component_class_id"][:_CLASS_CHARACTERS]
            if slim["props"].get("_selectable") is False:
                del slim["props"]["_selectable"]
        for function in config["dependencies"]:
            for name in _UNUSED_IF_EMPTY:
                if not function.get(name):
                    function.pop(name, None)
        return config

    def keep_private(self, public: Collection[Any]) -> None:
        """Make every function private that is not one of `public`.

        gradio's clients do not offer a private function. Who may call it is decided in the function itself,
        because the page calls it over the same HTTP interface.
        """
        for function in self.fns.values():
            if function.fn not in public:
                function.api_visibility = "private"
