"""Private parts of the source `redis`."""
