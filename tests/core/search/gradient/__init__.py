"""Tests of `core.search.gradient`."""
