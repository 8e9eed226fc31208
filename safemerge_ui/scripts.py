"""The page's JavaScript: covers that stay open, buttons inside HTML views, the theme and the address bar."""

from __future__ import annotations

KEEP_OPENED = """
const opened = new Set();
element.addEventListener('click', (event) => {
  const cover = event.target.closest('summary')?.parentElement;
  if (!cover?.dataset.key) return;
  if (cover.open) opened.delete(cover.dataset.key); else opened.add(cover.dataset.key);
});
watch('value', () => element.querySelectorAll('details[data-key]').forEach((cover) => {
  cover.open = opened.has(cover.dataset.key);
}));
"""
"""After an update, exactly the covers that the visitor has opened are open. A cover is identified by its key."""

PROMPT_LIST = (
    KEEP_OPENED
    + """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-ask]');
  if (button) trigger('ask', { index: Number(button.dataset.ask) });
});
"""
)

ROWS = (
    KEEP_OPENED
    + """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-row]');
  if (button) trigger('edit', { row: Number(button.dataset.row) });
});
"""
)

SAMPLES = (
    KEEP_OPENED
    + """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-decide]');
  if (button) trigger('decide', { row: Number(button.dataset.decide), keep: button.dataset.keep === '1' });
});
"""
)

HISTORY = """
element.addEventListener('click', (event) => {
  const open = event.target.closest('[data-open]');
  const resume = event.target.closest('[data-resume]');
  const remove = event.target.closest('[data-delete]');
  if (open) trigger('open', { run: open.dataset.open });
  if (resume) trigger('resume', { run: resume.dataset.resume });
  if (remove) trigger('remove', { run: remove.dataset.delete });
});
"""

RESIZE_CHARTS = "() => { setTimeout(() => window.dispatchEvent(new Event('resize')), 50); }"
"""Fits charts to their panel: one that was drawn while its tab was hidden has plotly's default width."""

TOGGLE_THEME = "() => { document.body.classList.toggle('dark'); }"

RUN_IN_ADDRESS = "(remembered) => new URL(window.location).searchParams.get('run') || remembered"
"""The run in the address, else the run that this browser remembers."""

SHOW_RUN_IN_ADDRESS = """(run) => {
  const address = new URL(window.location);
  address.searchParams.set('run', run);
  window.history.replaceState(null, '', address);
}"""
"""Writes the run into the address, so that a copied or reloaded address shows the same run."""
