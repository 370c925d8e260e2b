"""What `init` is made of: the parts one chooses, what was found here, questions, and the text."""
