"""The command line, which is the only part of the library that imports tasks and datamodules."""
