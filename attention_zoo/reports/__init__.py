"""Results, runs and sweeps as tables, figures and files; what is about one evaluation is in a package of its own."""
