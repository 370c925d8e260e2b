"""The private parts of `stages/storages/smb.py`."""
