"""Other pools' algorithms, one file each, and the client that retries blindly."""

from __future__ import annotations

from .am import PowerOfTwo
from .base import Peer
from .blind import Blind
from .clb import RelativeAvailability
from .cpa import RoundRobin, SmoothWeighted
from .g2a import Random
from .litellm import Litellm
from .lkp import Balanced, Sequential
from .oaa import Hybrid
from .omp import RequiredDrain
from .s78 import Seed
from .tc import Sticky

PEERS: tuple[type[Peer], ...] = (
    Blind, Litellm, Balanced, Sequential, Random, RoundRobin, SmoothWeighted, Hybrid, PowerOfTwo, RequiredDrain,
    RelativeAvailability, Sticky, Seed,
)  # fmt: skip
__all__ = ["PEERS", "Peer"]
