"""State that must survive a restart: rows in, rows out, in one SQLite file."""

from .database import Saved, Store

__all__ = ["Saved", "Store"]
