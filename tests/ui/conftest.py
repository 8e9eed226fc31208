"""A served page and a headless browser, for the tests that click."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from core.settings import Settings
from safemerge_ui.app import create_app, launch_options

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 60_000


@dataclass(frozen=True)
class Served:
    """A page that is being served, and its settings."""

    url: str
    settings: Settings

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.settings.runs


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The installed Chromium; skips without one unless SAFEMERGE_REQUIRE_BROWSER=1."""
    path = shutil.which("chromium")
    if path is None:
        reason = "There is no `chromium` on PATH."
        if os.environ.get("SAFEMERGE_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The whole page on a free port of this machine, with its own empty folders."""
    folder = tmp_path_factory.mktemp("served")
    settings = Settings(
        home=folder / "home",
        runs=folder / "runs",
        on_space=False,
        allowed_users=frozenset(),
        token=None,
        hub_timeout_s=2.0,
    )
    app = create_app(settings)
    _, url, _ = app.launch(**launch_options(settings), prevent_thread_lock=True, quiet=True)
    yield Served(url, settings)
    app.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of usual width, with an empty browser memory."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()
