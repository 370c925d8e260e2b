"""The private parts of the source for physical backups of PostgreSQL."""
