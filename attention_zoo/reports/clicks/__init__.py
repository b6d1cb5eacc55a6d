"""Tables, figures and files that put results of interactive segmentation side by side."""
