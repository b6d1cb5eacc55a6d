"""Tables, figures and files that put results of robustness side by side."""
