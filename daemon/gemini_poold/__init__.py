"""The daemon. `gemini_pool` (the client package) owns the wire types and the version; see DESIGN.md."""

from gemini_pool.wire import VERSION

__version__ = VERSION

__all__ = ["__version__"]
