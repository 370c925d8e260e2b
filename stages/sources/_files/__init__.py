"""The archives of `files.py`: walking a tree, reading it, writing tar, and restoring it."""
