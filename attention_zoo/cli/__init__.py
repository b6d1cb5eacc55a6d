"""The command line; the only part of the library that knows tasks and datamodules."""
