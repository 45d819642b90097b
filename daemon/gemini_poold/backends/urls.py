"""Model names in URLs."""

from __future__ import annotations

from urllib.parse import quote

from ..errors import PoolError


def bare(model: str) -> str:
    """The model's name without `models/` or a publisher's path before it."""
    return model.rsplit("/models/", 1)[-1].removeprefix("models/")


def quoted(model: str) -> str:
    """`bare(model)` for a URL. Raises PoolError `unknown_model` for what would leave its place in the path."""
    name = bare(model)
    if not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise PoolError("unknown_model", f"{model!r} is no name of a model")
    return quote(name, safe="/-._~@")


def model_path(model: str) -> str:
    """The Developer API's resource name of a model, tuned ones included."""
    name = quoted(model)
    return name if name.startswith("tunedModels/") else f"models/{name}"
