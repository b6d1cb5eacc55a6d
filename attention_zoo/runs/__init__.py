"""Reads and writes the files of a run; the command line, one of its users, builds on it."""
