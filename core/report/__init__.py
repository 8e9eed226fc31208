"""The report of a run as one HTML file and one Markdown file: what was merged and what was measured.

`write_report` is the entry. `run_record` reads the run folder, `build_report` makes a `document` from it with the
blocks of the `*_section` modules, and `html` and `markdown` write it.
"""
