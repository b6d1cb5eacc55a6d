"""The report on a sweep: its results, and their tables, figures and files."""
