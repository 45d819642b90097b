"""`gemini-pool env --write` and `--undo`: our settings in the tools' own files, and out of them again.

A file is edited in place (comments stay), replaced atomically, and its original kept beside it until it is put back.
What was written where stands in a record in our state folder, so that undoing needs no daemon.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemini_pool import jsonc
from gemini_pool.environment import Gateway, dotenv_quoted
from gemini_pool.errors import PoolError

TOOLS = ("gemini-cli", "opencode")
BACKUP = ".before-gemini-pool"
_LARGEST = 4 << 20
_LINE = re.compile(r"\s*(?:#.*)?|\s*(?:export\s+)?(?P<name>[A-Za-z_][\w.]*)\s*=(?P<value>.*)")

_Members = dict[tuple[str, ...], Any]
# A file, and what became of it: written, unchanged, restored, cleaned, deleted.
Done = tuple[str, str]
