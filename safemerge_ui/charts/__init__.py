"""Pure functions from a `RunView` to plotly figures."""
