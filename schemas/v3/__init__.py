"""The configuration of nixys/nxs-backup v3, as far as it is needed to convert it."""
