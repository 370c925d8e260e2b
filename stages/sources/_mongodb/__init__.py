"""Private parts of the source `mongodb`."""
