"""Private parts of the source `mysql_physical`."""
