"""`python app.py` opens the dashboard: settings, page, server."""

from __future__ import annotations

import sys

from core.errors import UnsupportedPlatform, require_posix


def main() -> None:
    """Serve the page until interrupted."""
    try:
        require_posix()
    except UnsupportedPlatform as error:
        sys.exit(str(error))
    from core.settings import load_settings
    from safemerge_ui.app import create_app, launch_options

    settings = load_settings()
    create_app(settings).launch(**launch_options(settings))


if __name__ == "__main__":
    main()
