"""The dashboard: with the top-level `app.py`, the only package that imports gradio.

`app.py` assembles the tabs, `tabs/` holds one module per tab (layout, events, handlers), `page_run.py` follows the run
on the page, `views/` and `charts/` turn a `RunView` into HTML and figures without gradio.
"""
