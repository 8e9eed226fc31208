"""What handlers work with: created once in `create_app` and passed to every handler, so that apps share nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.contracts.run_spec import RunSpec, load_spec
from core.errors import SpecError
from core.runs.run_storage import RunStorage
from core.settings import ASSETS, Settings
from safemerge_ui.model_cache import LentGpu, ModelCache, Models
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
        zero_gpu: runs comparisons where a GPU is lent for single calls; None elsewhere.
        storage: keeps finished runs over a restart of the machine; None if it has none.
    """

    settings: Settings
    watch: RunWatch
    model_cache: Models
    presets: dict[str, RunSpec]
    prompts: Path
    replies: ReplyFiles
    zero_gpu: LentGpu | None = None
    storage: RunStorage | None = None

    @property
    def default_spec(self) -> RunSpec:
        """The spec that the form opens with."""
        return next(iter(self.presets.values()))


def make_context(settings: Settings, assets: Path = ASSETS, zero_gpu: LentGpu | None = None) -> AppContext:
    """Create what one app needs.

    Args:
        settings: where runs and models are stored.
        assets: folder with `specs/` and the demo's prompts.
        zero_gpu: the GPU that is lent for single calls, on such a machine.

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
    model_cache = zero_gpu or ModelCache(settings, busy=watch.busy_needs)
    storage = RunStorage(settings.storage, settings.runs) if settings.storage else None
    prompts = assets / "demo" / "prompts"
    return AppContext(settings, watch, model_cache, presets, prompts, ReplyFiles(), zero_gpu, storage)
