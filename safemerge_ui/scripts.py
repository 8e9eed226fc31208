"""The page's JavaScript: covers that stay open, buttons inside HTML views, the story, the theme, the address bar."""

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

CHAT = (
    KEEP_OPENED
    + """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-guess]');
  if (button) trigger('guess', { place: button.dataset.guess });
});
"""
)

SAVE_TEXT = """(text) => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = 'safemerge-chat.json';
  if (text) link.click();
  return [];
}"""
"""Saves a text as a file of the visitor."""

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

SHOW_QUESTION = """() => {
  setTimeout(() => document.getElementById('runs-question')?.scrollIntoView({ block: 'center' }), 100);
}"""
"""Scrolls to the question whether a run is to be deleted, which stands above a long list."""

RESIZE_CHARTS = "() => { setTimeout(() => window.dispatchEvent(new Event('resize')), 50); }"
"""Fits charts to their panel: one that was drawn while its tab was hidden has plotly's default width."""

TOGGLE_THEME = """() => {
  localStorage.setItem('safemerge-theme', document.body.classList.toggle('dark') ? 'dark' : 'light');
}"""
"""Changes between the light and the dark theme, and remembers the choice in this browser."""

RUN_AND_TAB_IN_ADDRESS = """(remembered, screen) => {
  const theme = localStorage.getItem('safemerge-theme'), tabs = [...document.querySelectorAll('.sm-tabs [role=tab]')];
  if (theme) document.body.classList.toggle('dark', theme === 'dark');
  const asked = new URL(location).searchParams, known = tabs.map((tab) => tab.innerText.trim().toLowerCase());
  const shown = () => tabs.find((tab) => tab.ariaSelected === 'true')?.innerText.trim().toLowerCase();
  let acted = 0;
  ['pointerdown', 'keydown'].forEach((kind) => addEventListener(kind, () => { acted = Date.now(); }, true));
  new MutationObserver(() => {
    const address = new URL(location), tab = shown();
    if (!tab || (address.searchParams.get('tab') || 'story') === tab) return;
    address.searchParams.set('tab', tab);
    history[Date.now() - acted < 1500 ? 'pushState' : 'replaceState'](null, '', address);
  }).observe(document.querySelector('.sm-tabs [role=tablist]'), { subtree: true, attributeFilter: ['aria-selected'] });
  addEventListener('popstate', () => {
    const tab = new URL(location).searchParams.get('tab') || 'story';
    if (tab !== shown()) tabs[known.indexOf(tab)]?.click();
  });
  const tab = asked.get('story') ? 'story' : known.includes(asked.get('tab')) ? asked.get('tab') : '';
  return [asked.get('run') || remembered, tab + (asked.get('run') ? '|run' : '')];
}"""
"""The run in the address, else the run that this browser remembers; and the tab in the address, `story` for one of its
acts. Applies the remembered theme. From now on the address names the tab, and Back opens the tab before."""

SHOW_RUN_IN_ADDRESS = """(run) => {
  const address = new URL(window.location);
  address.searchParams.set('run', run);
  window.history.replaceState(null, '', address);
}"""
"""Writes the run into the address, so that a copied or reloaded address shows the same run."""

SCREEN = """(_, ...others) =>
[innerWidth + (matchMedia('(prefers-reduced-motion: reduce)').matches ? ' still' : ''), ...others]"""
"""Fills the first input with the window's width in pixels, and `still` where the visitor wants no motion."""

SCREEN_AND_ACT = """() => [innerWidth + (matchMedia('(prefers-reduced-motion: reduce)').matches ? ' still' : '') + '|'
  + (new URL(location).searchParams.get('story') || '')]"""
"""The window as `SCREEN` reports it, and the act in the address."""

STORY_KEYS = """
element.addEventListener('click', (event) => {
  const link = event.target.closest('[data-act]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  trigger('open', { act: link.dataset.act });
});
watch('value', () => {
  const address = new URL(window.location), act = element.querySelector('[aria-current]')?.dataset.act;
  if (!act || address.searchParams.get('story') === act) return;
  address.searchParams.set('story', act);
  window.history.replaceState(null, '', address);
});
document.addEventListener('keydown', (event) => {
  const id = { ArrowRight: 'story-next', ArrowLeft: 'story-back' }[event.key];
  const typing = event.target.closest?.('input, textarea, [contenteditable], [role=tab], [role=slider]');
  const button = id && document.getElementById(id);
  if (button && button.offsetParent && !typing && !event.altKey && !event.ctrlKey && !event.metaKey) button.click();
});
document.addEventListener('fullscreenchange', () => {
  if (!document.fullscreenElement) document.body.classList.remove('sm-presenting');
});
"""
"""Links to acts open them in place, and the address names the act that is shown. The arrow keys turn to the act before
or after while the Story tab is shown."""

OPEN_TAB = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-tab]');
  if (!button) return;
  document.body.classList.remove('sm-presenting');
  if (document.fullscreenElement) document.exitFullscreen();
  [...document.querySelectorAll('[role=tab]')].find((tab) => tab.innerText.trim() === button.dataset.tab)?.click();
});
"""

TOGGLE_PRESENTING = """() => {
  const presenting = document.body.classList.toggle('sm-presenting');
  if (presenting) document.documentElement.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) document.exitFullscreen();
  setTimeout(() => window.dispatchEvent(new Event('resize')), 200);
}"""
"""Shows the story alone, on the whole screen where the browser allows it. Escape ends it."""

HIDE_ACT_IN_ADDRESS = """() => {
  setTimeout(() => {
    const address = new URL(window.location), shown = document.getElementById('story')?.offsetParent;
    if (!shown) address.searchParams.delete('story');
    window.history.replaceState(null, '', address);
  }, 100);
  return [];
}"""
"""Removes the act from the address once another tab than Story is shown."""
