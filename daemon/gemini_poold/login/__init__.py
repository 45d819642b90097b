"""Logging in with a browser, and what people do with accounts at run time: add, remove, enable, verify."""
