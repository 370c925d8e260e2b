"""Where logs go besides the terminal: a file, the system's log, the journal."""
