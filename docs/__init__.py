"""The guide, and what makes parts of it from the program."""
