"""Pure functions from run data to HTML; all text from models and visitors is escaped."""
