"""Using drivers of fsspec, for `fsspec.py`: which can be trusted with what, and their threads."""
