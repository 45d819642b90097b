"""What a running daemon is busy with, for SIGUSR1: its tasks, where each waits, and the lengths of its queues.

Names, files and lines alone; no value of any variable, so that no secret can come along.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def lines(queues: Mapping[str, int], tasks: Iterable[asyncio.Task[Any]] | None = None) -> Iterator[str]:
    """Queues first, then each kind of task with how many stand at the same place. Call it on the loop."""
    yield "queues: " + ", ".join(f"{name} {length}" for name, length in queues.items())
    found = list(asyncio.all_tasks() if tasks is None else tasks)
    yield f"tasks: {len(found)}"
    for (name, at), count in Counter(map(_place, found)).most_common():
        yield f"  {count} of {name} at {at}"


def _place(task: asyncio.Task[Any]) -> tuple[str, str]:
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    stack = task.get_stack()
    if not stack:
        return name, "its end"
    frame = _innermost(coroutine) or stack[-1]
    return name, f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"


def _innermost(coroutine: Any) -> Any:
    """`Task.get_stack` ends at the outermost coroutine; what it waits in is found along `cr_await`."""
    frame = None
    while (inner := getattr(coroutine, "cr_frame", None)) is not None:
        frame, coroutine = inner, coroutine.cr_await
    return frame
