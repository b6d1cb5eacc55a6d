"""The results of evaluations, which can be written, read and compared; each kind has a module of its own."""
