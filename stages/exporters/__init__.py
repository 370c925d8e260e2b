"""What tells monitoring systems about runs: metrics and traces; one exporter, one file."""
