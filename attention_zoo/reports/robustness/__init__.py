"""Results of robustness side by side: tables, figures and files."""
