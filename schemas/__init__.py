"""What a user may write: pydantic models, and the loader that reports every problem."""
