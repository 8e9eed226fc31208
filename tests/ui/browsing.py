"""What browser tests do on the page: open it, open a tab, show a run, choose an option."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.ui.conftest import PATIENCE_MS, Served

expect.set_options(timeout=PATIENCE_MS)


def open_page(page: Page, url: str) -> None:
    """Open the page and wait until it can be used."""
    page.goto(url)
    expect(page.get_by_role("tab", name="Pool")).to_be_visible()


def open_tab(page: Page, name: str) -> None:
    """Open a tab by its title."""
    page.get_by_role("tab", name=name, exact=True).click()


def show_run(page: Page, served: Served, run_id: str) -> None:
    """Open the page on a merge run and wait until the run is drawn."""
    open_page(page, f"{served.url}?run={run_id}")
    expect(page.locator("#merge-line")).to_contain_text(run_id)


def choose(page: Page, element: str, option: str) -> None:
    """Choose an option of a dropdown."""
    page.locator(f"#{element} input").click()
    page.get_by_role("option", name=option, exact=True).click()
