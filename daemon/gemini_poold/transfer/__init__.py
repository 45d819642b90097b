"""Logins of other programs, in and out, and archives for moving to another machine."""
