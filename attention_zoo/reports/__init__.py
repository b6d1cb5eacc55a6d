"""Tables, figures and files of results, runs and sweeps; each kind of evaluation has a package of its own."""
