"""The mathematics of the readings without parameters, one module per reading."""
