"""The version of the program; the only place that has it."""

VERSION = "4.0.0a1"
