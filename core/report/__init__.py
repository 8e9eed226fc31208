"""The report of a run: what was done and measured, as one HTML file and one Markdown file (`files.write_report`)."""
