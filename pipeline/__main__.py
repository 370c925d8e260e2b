"""`python -m pipeline`: the program from a checkout."""

from pipeline.cli.main import entry

entry()
