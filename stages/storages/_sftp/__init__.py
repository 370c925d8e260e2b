"""Speaking SFTP, for `sftp.py`: logging in, connections, a window of blocks."""
