"""The table as a picture: for each trace the served share of the bound, and what it cost in refusals. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

from .run import OURS
from .score import Score
from .traces import BY_NAME, TARGET

_LEAST = 0.005  # refusals per success are drawn on a logarithm; fewer than this are none
_OTHERS = "#9aa5b1"
_OWN = "#1a73e8"


def draw(found: Sequence[Score], file: str) -> None:
    """`file`'s ending names the format (svg, png, pdf)."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "gemini-pool"  # the same table gives the same file
    from matplotlib import pyplot as plt

    traces = list(dict.fromkeys(s.trace for s in found))
    height = 1.2 + 0.42 * len(traces)
    figure, (served, refused) = plt.subplots(1, 2, figsize=(11, height), sharey=True, layout="constrained")
    for s in found:
        own = s.algorithm == OURS
        y = traces.index(s.trace)
        look = {
            "color": _OWN if own else _OTHERS,
            "zorder": 3 if own else 2,
            "s": 46 if own else 18,
            "linewidths": 0,
        }
        label = OURS if own and not y else "peers" if not own and not y else None
        served.scatter(100 * s.share, y, **look)
        refused.scatter(max(_LEAST, s.refusals), y, label=label, **look)
    for y, name in enumerate(traces):
        served.plot([100 * TARGET[BY_NAME[name].grade]] * 2, [y - 0.35, y + 0.35], color="#d93025", lw=1.5)
    served.set_yticks(range(len(traces)), traces)
    served.invert_yaxis()
    served.set_xlabel("served, % of the clairvoyant bound (red: our target)")
    served.set_xlim(min(70.0, 100 * min(s.share for s in found if s.algorithm == OURS) - 2), 100.6)
    refused.set_xscale("log")
    refused.axvline(0.05, color="#d93025", lw=1.0, ls="--")
    refused.set_xlabel("refusals per success (dashed: our target; the left edge is none)")
    for axes in (served, refused):
        axes.grid(axis="x", color="#e8eaed")
        axes.set_axisbelow(True)
    handles, labels = refused.get_legend_handles_labels()
    kept = {label: handle for handle, label in zip(handles, labels, strict=True)}
    refused.legend(kept.values(), kept.keys(), loc="lower right", frameon=False)
    figure.savefig(file, metadata={"Date": None} if file.endswith("svg") else None)
