"""The accounts file: its schema, reading and replacing it, and noticing that it changed."""
