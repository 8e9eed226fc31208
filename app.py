"""`python app.py` opens the dashboard: settings, page, server."""

from __future__ import annotations

import sys

from core.errors import UnsupportedPlatform, require_posix

try:  # before the imports below, which fail on Windows without a helpful message
    require_posix()
except UnsupportedPlatform as error:
    sys.exit(str(error))

from core.settings import load_settings
from safemerge_ui.serving import serve


def main() -> None:
    """Serve the page until interrupted."""
    serve(load_settings())


if __name__ == "__main__":
    main()
