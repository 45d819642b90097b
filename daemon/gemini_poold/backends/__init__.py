"""One file a Google backend: URLs, bodies, and the reading of what comes back. Nothing here sends anything."""

from __future__ import annotations

from .base import Backend, Reading, build

__all__ = ["Backend", "Reading", "build"]
