"""Private parts of the source `sqlite`."""
