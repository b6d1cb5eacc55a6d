"""Runs the command line for ``python -m attention_zoo``."""

from attention_zoo.cli.main import main

if __name__ == "__main__":
    main()
