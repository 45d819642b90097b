"""What the gateway counts of its own requests, and Prometheus's text form. Pool counters are the pool's."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Histogram:
    """Prometheus's, in seconds over BOUNDS_S."""

    def __init__(self, name: str, text: str) -> None:
        self._name = f"gemini_pool_{name}"
        self._text = text
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self._total_s = 0.0

    def add(self, took_s: float) -> None:
        self._buckets[bisect_left(BOUNDS_S, took_s)] += 1
        self._total_s += took_s

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self._name} {self._text}"
        yield f"# TYPE {self._name} histogram"
        running = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self._buckets, strict=True):
            running += count
            yield f'{self._name}_bucket{{le="{bound}"}} {running}'
        yield f"{self._name}_sum {self._total_s:.6f}"
        yield f"{self._name}_count {running}"


class Meter:
    """What the gateway counts of its own requests, by surface and by status class."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.held_bytes = 0  # of bodies, kept until their request ends
        self.spooled_bytes = 0  # the same, on the disk
        self._requests: Counter[tuple[str, str]] = Counter()
        self._seconds = Histogram("gateway_seconds", "Time of a request, generation included")
        self._first_byte = Histogram(
            "gateway_first_byte_seconds", "Until Google's answer began, waiting included"
        )
        self._bytes_in = 0
        self._bytes_out = 0

    def count(
        self,
        surface: str,
        outcome: str,
        took_s: float,
        *,
        bytes_in: int,
        bytes_out: int,
        first_byte_s: float | None = None,
    ) -> None:
        self._requests[surface, outcome] += 1
        self._seconds.add(took_s)
        if first_byte_s is not None:
            self._first_byte.add(first_byte_s)
        self._bytes_in += bytes_in
        self._bytes_out += bytes_out

    def lines(self) -> Iterator[str]:
        yield from family("gateway_in_flight", "gauge", "HTTP requests being served", [("", self.in_flight)])
        yield from family("gateway_held_bytes", "gauge", "Bodies kept for repeating", [("", self.held_bytes)])
        yield from family(
            "gateway_spooled_bytes", "gauge", "The same on the disk", [("", self.spooled_bytes)]
        )
        yield from family(
            "gateway_requests_total",
            "counter",
            "HTTP requests by surface and outcome",
            [
                (labels(surface=surface, outcome=outcome), count)
                for (surface, outcome), count in sorted(self._requests.items())
            ],
        )
        yield from family(
            "gateway_bytes_total",
            "counter",
            "Bytes of bodies",
            [(labels(direction="in"), self._bytes_in), (labels(direction="out"), self._bytes_out)],
        )
        yield from self._seconds.lines()
        yield from self._first_byte.lines()


def family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP gemini_pool_{name} {text}"
    yield f"# TYPE gemini_pool_{name} {kind}"
    for labels, value in samples:
        yield f"gemini_pool_{name}{labels} {value}"


def labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
