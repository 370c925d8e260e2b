"""What `s3.py` does with the service: parts, publishing, uploads that dead runs left, errors."""
