"""The dashboard: the only package, with `app.py`, that imports gradio.

`app.py` puts the tabs together, `tabs/` holds one module a tab (layout, events, handlers), `views/` and `charts/`
turn a `RunView` into HTML and figures without knowing about gradio or a server.
"""
