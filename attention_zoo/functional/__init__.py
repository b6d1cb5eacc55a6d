"""The mathematics of the mixers as functions without learned parameters, one module per topic."""
