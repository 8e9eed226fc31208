"""Pure functions from run data to HTML; everything that comes from a model or a person is escaped."""
