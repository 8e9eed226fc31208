"""What handlers work with: created once in `create_app` and passed to every handler, so that apps share nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.contracts.run_spec import RunSpec, load_spec
from core.errors import SpecError
from core.settings import ASSETS, Settings
from safemerge_ui.model_cache import ModelCache
from safemerge_ui.reply_files import ReplyFiles
from safemerge_ui.watch import RunWatch

PRESETS = {"Demo pool": "demo.yaml", "Quick demo": "demo_quick.yaml"}


@dataclass(frozen=True)
class AppContext:
    """One app's settings and shared objects.

    Attributes:
        presets: spec by label; the first one fills the form.
        prompts: folder of the example prompts of the Chat tab.
        replies: the measured replies of runs.
    """

    settings: Settings
    watch: RunWatch
    model_cache: ModelCache
    presets: dict[str, RunSpec]
    prompts: Path
    replies: ReplyFiles

    @property
    def default_spec(self) -> RunSpec:
        """The spec that the form opens with."""
        return next(iter(self.presets.values()))


def make_context(settings: Settings, assets: Path = ASSETS) -> AppContext:
    """Create what one app needs.

    Raises:
        SpecError: the assets folder has no demo specs.
    """
    files = {label: assets / "specs" / name for label, name in PRESETS.items()}
    presets = {label: load_spec(path) for label, path in files.items() if path.is_file()}
    if not presets:
        raise SpecError(
            f"There are no demo specs in {assets / 'specs'}.", "Restore the assets folder.", code="no-demo-specs"
        )
    watch = RunWatch(settings.runs)
    model_cache = ModelCache(settings, busy=watch.busy_needs)
    return AppContext(settings, watch, model_cache, presets, assets / "demo" / "prompts", ReplyFiles())
