"""Speaking FTP, for `ftp.py`: connections, transfers that go on after a break, listings."""
