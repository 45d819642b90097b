"""Reading the two files anew: at start, on an edit, on SIGHUP and when a client asks. The old stays when the new is bad.

What is wrong with a file is kept in `errors`, with its place, until the file is mended. What an account or a setting
does with its new value is not known here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from gemini_pool import wire
from gemini_pool.paths import Places

from . import config as config_module
from .accounts.doubts import doubts
from .accounts.schema import AccountEntry, parse
from .accounts.store import AccountsFile, Loaded
from .accounts.watch import content_digest, watch
from .clock import Clock
from .config import Config
from .core.model import PoolEvent
from .core.state import Changes
from .errors import ConfigInvalid, PoolError
from .runtime.broker import Broker
from .runtime.lifecycle import Lifecycle
from .store import Saved, Store

log = logging.getLogger("gemini_pool.reload")

# Raises ConfigInvalid when it cannot be put in force; then nothing has changed.
ApplyConfig = Callable[[Config], Awaitable[bool]]


class Reloader:
    """`apply_config` puts a new configuration in force and says whether credentials must be made anew."""

    def __init__(
        self,
        where: Places,
        config: Config,
        *,
        store: Store,
        broker: Broker,
        lifecycle: Lifecycle,
        apply_config: ApplyConfig,
        clock: Clock,
    ) -> None:
        self.wanted = asyncio.Event()  # SIGHUP
        self._where = where
        self._config = config
        self._store = store
        self._broker = broker
        self._lifecycle = lifecycle
        self._apply_config = apply_config
        self._clock = clock
        self._file = AccountsFile(where.accounts_file)
        self._accounts: Sequence[AccountEntry] = ()
        self._doubts: list[str] = []
        self._lock = asyncio.Lock()
        self._errors: dict[Path, list[wire.ConfigError]] = {}
        self._seen: dict[Path, str] = {}  # contents that were read at start: the watch begins a moment later

    @property
    def _watched(self) -> tuple[Path, Path]:
        return self._where.config_file, self._where.accounts_file

    @property
    def errors(self) -> list[wire.ConfigError]:
        """What is wrong with the files now; the last good values are in force."""
        return [error for errors in self._errors.values() for error in errors]

    # ---- start -----------------------------------------------------------------------------------------------

    async def start(self, saved: Saved) -> None:
        """Take the accounts of the file; of a broken one, those of its last good text."""
        self._seen = {path: content_digest(path) for path in self._watched}
        try:
            loaded = self._file.read()
        except ConfigInvalid as error:
            self._note(self._where.accounts_file, error)
            self._take(self._last_good(saved))
            self._doubt()
            return
        self._take(loaded.entries)
        self._doubt()
        await self._store.set_last_good(loaded.text)

    def _last_good(self, saved: Saved) -> list[AccountEntry]:
        if saved.last_good_accounts is None:
            log.warning(
                "there is no earlier accounts file to go on with: the pool is empty until the file is mended"
            )
            return []
        try:
            entries = parse(saved.last_good_accounts, "the last good accounts file")
        except ConfigInvalid as error:  # written by a version that allowed more
            log.warning("%s: the pool is empty until the file is mended", error.message)
            return []
        log.warning("going on with the last good accounts file (%d accounts)", len(entries))
        return entries

    # ---- life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reload on every edit of the files and on SIGHUP. Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            while True:
                await self.wanted.wait()
                self.wanted.clear()
                await self._reload_and_tell()

    async def _watch(self) -> None:
        async for changed in watch(self._watched, asyncio.Event(), known=self._seen):
            log.info("%s changed", ", ".join(str(path) for path in sorted(changed)))
            await self._reload_and_tell(told=False)

    async def _reload_and_tell(self, *, told: bool = True) -> None:
        try:
            await self.reload(told=told)
        except PoolError as error:  # the disk: told in the log and by `pool/status`, the daemon goes on
            log.error("reload: %s", error.message)

    async def reload(self, *, told: bool = True) -> wire.ReloadResult:
        """Read both files and put what is good in force; durable when this returns. Raises PoolError for the disk.

        `told`: a person asked for it, so that the gateway's keys are read again even where no file of ours changed.
        """
        async with self._lock:
            config_changed, restart_needed, anew = await self._reload_config(told=told)
            changes = await self._reload_accounts(refresh_all=anew)
            self._doubt()
        result = wire.ReloadResult(
            added=list(changes.added),
            removed=list(changes.removed),
            changed=list(changes.changed),
            unchanged=changes.unchanged,
            config_changed=config_changed,
            restart_needed=restart_needed,
            errors=self.errors,
            warnings=list(self._doubts),
        )
        self._tell(result)
        return result

    async def _reload_config(self, *, told: bool) -> tuple[list[str], list[str], bool]:
        try:
            new = config_module.load(self._where.config_file)
            difference = config_module.diff(self._config, new)
            anew = await self._apply_config(new) if difference.changed or told else False
        except ConfigInvalid as error:
            self._note(self._where.config_file, error)
            return [], [], False
        self._errors.pop(self._where.config_file, None)
        self._config = new
        return list(difference.changed), list(difference.restart), anew

    async def _reload_accounts(self, *, refresh_all: bool) -> Changes:
        loaded: Loaded | None = None
        try:
            loaded = self._file.read()
        except ConfigInvalid as error:
            self._note(self._where.accounts_file, error)
            if not refresh_all:
                return Changes((), (), (), len(self._accounts))
        changes = self._take(self._accounts if loaded is None else loaded.entries, refresh_all=refresh_all)
        await self._broker.flush()
        if loaded is not None:
            self._errors.pop(self._where.accounts_file, None)
            await self._store.set_last_good(loaded.text)
        return changes

    # ---- inside ----------------------------------------------------------------------------------------------

    def _take(self, entries: Sequence[AccountEntry], *, refresh_all: bool = False) -> Changes:
        self._accounts = entries
        return self._lifecycle.apply(entries, refresh_all=refresh_all)

    def _doubt(self) -> None:
        """Say what cannot work, once for as long as it is so."""
        before, self._doubts = self._doubts, doubts(self._config, self._accounts)
        for each in self._doubts:
            if each not in before:
                log.warning("%s", each)

    def _note(self, path: Path, error: ConfigInvalid) -> None:
        self._errors[path] = [
            wire.ConfigError(e.file or str(path), e.line, e.column, e.problem, e.hint)
            for e in error.all_errors
        ]
        for each in error.all_errors:
            log.error("%s%s", each.message, f" ({each.hint})" if each.hint else "")

    def _tell(self, result: wire.ReloadResult) -> None:
        parts = [
            f"{len(ids)} {word}"
            for word, ids in (
                ("added", result.added),
                ("removed", result.removed),
                ("changed", result.changed),
            )
            if ids
        ]
        if result.config_changed:
            parts.append(f"settings {', '.join(result.config_changed)}")
        if result.restart_needed:
            parts.append(f"restart needed for {', '.join(result.restart_needed)}")
        if result.errors:
            parts.append(f"{len(result.errors)} errors, the old values stay")
        parts += result.warnings
        level = "warning" if result.errors or result.warnings else "info"
        text = f"reloaded: {'; '.join(parts) or 'nothing changed'}"
        self._broker.tell(PoolEvent("reload", level, self._clock.now(), text))
