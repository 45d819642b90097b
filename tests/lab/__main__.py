"""`python -m tests.lab`: every trace, every algorithm, one table; from the repository's root.

--traces NAME…    only these        --only NAME…   only these algorithms
--seeds N         default 5         --picture FILE write the table as a picture, too (needs matplotlib)
--jobs N          processes, default one a core
--check           fail when one of our own targets is missed
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "daemon"), str(_ROOT / "client" / "python")]  # the tree, not what is installed


def main() -> int:
    from .run import OURS, makers, scores
    from .score import Score
    from .table import HEAD, blocks, misses
    from .traces import BY_NAME

    known = list(makers())
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", nargs="+", choices=list(BY_NAME), default=list(BY_NAME), metavar="NAME")
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", metavar="FILE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    found: list[Score] = []

    def kept() -> Iterator[Score]:
        for each in scores([BY_NAME[name] for name in args.traces], args.only, args.seeds, jobs=args.jobs):
            found.append(each)
            yield each

    print(HEAD, flush=True)
    for block in blocks(kept()):
        print(block, flush=True)
    if args.picture:
        from .picture import draw

        draw(found, args.picture)
    return int(args.check and any(misses(s) for s in found if s.algorithm == OURS))


if __name__ == "__main__":
    sys.exit(main())
