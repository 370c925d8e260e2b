"""The version of the program; the only place that has it."""

VERSION = "0.1.0"
