"""A client of NFS version 3 in plain Python, for `nfs.py`: RPC, XDR, windows of requests."""
