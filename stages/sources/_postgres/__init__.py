"""The private parts of the PostgreSQL sources."""
