"""The command line: parse, call the engine, render. Only `main.entry` ends the process."""
