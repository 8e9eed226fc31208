"""The few lines of JavaScript of the page: covers that stay open, buttons inside views, theme and address bar."""

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
"""A view that is drawn again keeps exactly the covers open that the visitor has opened, told apart by their key."""

SHELF = (
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

TOGGLE_THEME = "() => { document.body.classList.toggle('dark'); }"

RUN_IN_ADDRESS = "(remembered) => new URL(window.location).searchParams.get('run') || remembered"
"""The run that the address names, else the one that this browser remembers."""

SHOW_RUN_IN_ADDRESS = """(run) => {
  const address = new URL(window.location);
  address.searchParams.set('run', run);
  window.history.replaceState(null, '', address);
}"""
"""The address names the run, so that a copied or reloaded address shows the same one."""
