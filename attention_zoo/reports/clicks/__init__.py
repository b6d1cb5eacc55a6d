"""Results of interactive segmentation side by side: tables, figures and files."""
