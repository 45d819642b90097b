"""Surface x backend x call: works, translated, answered here or refused with its reason, found out by asking.

The committed page is what this writes: `GEMINI_POOL_WRITE=1 pytest tests/gateway/test_conformance.py` after a change
that is meant. One line in `conformance.py` is one line of the page.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from tests.fakes.site import BACKENDS, Got, ThreeBackends, three_backends
from tests.gateway.conformance import CALLS, Called, filled

PAGE = Path(__file__).parents[2] / "daemon" / "CONFORMANCE.md"
COLUMNS = {"gl": "Developer API", "ca": "Code Assist", "vx": "Vertex"}
FORMS = {"Gemini API": "gl", "Code Assist": "ca", "Vertex": "vx"}
HEAD = """# What every surface does on every backend

Each cell was asked of the real daemon, pinned to an account of that backend over the built-in fake Google, by
`tests/gateway/test_conformance.py`, which fails when this page says anything else. **works**: the body reached Google
byte for byte as the client sent it. **translated**: in another form. **here**: answered by the daemon, Google was not
asked with this account. **refused**: the error, in the surface's own form, that the client gets.
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    with three_backends(tmp_path_factory.mktemp("conformance")) as made:
        yield made


def cell(site: ThreeBackends, called: Called, backend: str) -> str:
    """What comes of one call on one backend."""
    model = site.fresh()
    body = filled(called.body, model=model)
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = {name: value.replace("{key}", site.key) for name, value in called.headers}
    got = site.ask(called.verb, filled(called.path, model=model), sent, pin=backend, **headers)
    assert not got.cut, called
    if got.status >= 400:
        return refused(called, got)
    assert got.status == 200, (called, got)
    assert called.right(got), (called.surface, called.name, backend, got.body[:600])
    if got.headers.get("x-gemini-pool-account") is None:
        return "here"
    assert got.headers["x-gemini-pool-account"] == backend
    reached = [call for call in site.google.record.find() if call.kind not in {"token", "load", "models"}]
    return "works" if any(call.body == (sent or b"") for call in reached) else "translated"


def refused(called: Called, got: Got) -> str:
    """The refusal as the page tells it; it has the surface's form whatever it is."""
    value = got.json
    error = (value[0] if isinstance(value, list) else value)["error"]
    assert error["message"]
    assert got.status != 401
    if called.surface == "OpenAI":
        assert {"message", "type", "code"} <= set(error)
    elif "interactions" not in called.path:
        assert (error["code"], bool(error["status"])) == (got.status, True)
    reason = re.sub(r"gemini-fresh-\d+", "MODEL", str(error["message"])).replace("|", "/")
    return f"refused {got.status}: {reason}"


def page(site: ThreeBackends) -> str:
    lines, surface = [HEAD], ""
    for called in CALLS:
        if called.surface != surface:
            surface = called.surface
            lines += [f"## {surface}", "", f"| call | {' | '.join(COLUMNS.values())} |", "|---|---|---|---|"]
        cells = [cell(site, called, backend) for backend in BACKENDS]
        lines.append(f"| {called.name} | {' | '.join(cells)} |")
        if called is CALLS[-1] or CALLS[CALLS.index(called) + 1].surface != surface:
            lines.append("")
    return "\n".join(lines)


def test_the_page_is_what_happens(site: ThreeBackends) -> None:
    """Every call on every backend, against the committed table."""
    found = page(site)
    if os.environ.get("GEMINI_POOL_WRITE"):
        PAGE.write_text(found, encoding="utf-8")
    said = PAGE.read_text(encoding="utf-8")
    assert found.splitlines() == said.splitlines(), (
        "write the page anew if the change is meant (see this file's top)"
    )


def test_a_surface_works_untouched_on_its_own_backend() -> None:
    """The page itself: generating is never refused, and never touched where client and account speak alike."""
    rows = [
        line.strip("| ").split(" | ")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    generating = [row for row in rows if row[0].startswith(("generateContent", "streamGenerateContent"))]
    assert len(generating) == 9
    assert all(cell in {"works", "translated"} for row in generating for cell in row[1:])
    for number in (0, 2):  # Code Assist's own bodies name a project: they are always rewritten
        assert all(row[1 + number] == "works" for row in generating[number * 3 : number * 3 + 3])
