"""Side-by-side measurements against the tools that people use today, in the same run."""
