"""Speaking WebDAV, for `webdav.py`: requests that are tried again, uploads that cannot be."""
