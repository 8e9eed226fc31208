"""One module a tab: `build()` lays out, `wire()` binds events to module-level handlers."""
