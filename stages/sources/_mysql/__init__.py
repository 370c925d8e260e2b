"""Private parts of the `mysql` and `mysql_physical` sources."""
