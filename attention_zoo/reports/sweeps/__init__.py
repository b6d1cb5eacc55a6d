"""The report on a sweep: what came out of it, tables, figures and files."""
