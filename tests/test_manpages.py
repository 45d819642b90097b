"""The manual pages: one for each verb, made from the grammar, and read without complaint by `man`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from gemini_pool.cli import build_parser
from gemini_pool.completions import places

SCRIPT = Path(__file__).parent.parent / "packaging" / "manpages.py"


def test_every_verb_has_a_page(tmp_path: Path) -> None:
    """Name, synopsis and every option of each verb; the same text again from the same date; no roff warning."""
    for folder in ("one", "two"):
        environ = {
            "SOURCE_DATE_EPOCH": "1700000000",
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
        }
        subprocess.run([sys.executable, SCRIPT, tmp_path / folder], check=True, env=environ)
    first = {path.name: path.read_text() for path in (tmp_path / "one").iterdir()}
    assert first == {path.name: path.read_text() for path in (tmp_path / "two").iterdir()}
    top, *inner = places(build_parser())
    assert set(first) == {"gemini-pool.1", *(f"gemini-pool-{verb}.1" for verb in top.verbs)}
    for place in inner:
        page = first[f"gemini-pool-{place.path[0]}.1"]
        for flag in place.flags:
            assert flag.replace("-", "\\-") in page, (place.path, flag)
    if shutil.which("groff"):
        for name in first:
            line = ["groff", "-man", "-ww", "-z", str(tmp_path / "one" / name)]
            done = subprocess.run(line, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), name
