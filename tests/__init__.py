"""The tests, a package so that a package of this name among the installed ones does not come first."""
