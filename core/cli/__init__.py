"""The command line, which can do everything that the dashboard does. One file per command or small group."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_SPEC = 2
EXIT_CANCELLED = 130
