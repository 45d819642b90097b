"""The composition root: builds the daemon, runs it in one TaskGroup, and takes it down in order.

Nothing is decided here. What a reload does is `reload.py`'s, what an account goes through `runtime.lifecycle`'s.

Order of the start: sockets first (a second daemon must not touch the first one's state), then the state, the accounts,
the servers; READY when the sockets accept, not when Google has answered. Order of the end: no new work, drain, servers,
tasks, state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_pool import wire
from gemini_pool.paths import Places, places

from . import __version__, backends, files, garbage, handover, service
from . import config as config_module
from . import log as log_module
from .backends.code_assist import CodeAssist
from .clock import Clock, SteadyClock, SystemClock
from .config import Config
from .core.model import AccountState, Backend
from .core.quota import Quotas
from .core.state import Pool
from .credentials.base import Context
from .credentials.sealer import Sealer
from .credentials.secret_ref import Source, sealing_key
from .errors import ConfigInvalid, FileRefused, PoolError, StateUnusable
from .gateway import keys, spooling
from .gateway.app import Gateway
from .gateway.auth import LocalKeys
from .gateway.models import Catalogue, developer_api_list
from .gateway.services import Services as GatewayServices
from .gateway.services import Settings
from .gateway.tracing import Tracing
from .gateway.tracing import load as load_tracing
from .ipc import listen, views
from .ipc.server import Server
from .ipc.services import Services as RpcServices
from .reload import Reloader
from .runtime import logind, network
from .runtime.broker import Broker
from .runtime.dispatch import Dispatcher
from .runtime.forward import Forwarder
from .runtime.lending import Lender
from .runtime.lifecycle import Lifecycle
from .runtime.live import Live
from .runtime.poller import Poller
from .runtime.setup import Setup
from .runtime.waking import Waking
from .store import Store
from .transport import AiohttpTransport

if TYPE_CHECKING:
    from .transfer.managing import Managing

log = logging.getLogger("gemini_pool")

DRAIN_S = 12.0  # the unit's TimeoutStopSec is 15 s
PREDECESSOR_S = 3.0
STATUS_S = 15.0
COMING = frozenset({AccountState.STARTING, AccountState.OFFLINE})


def main() -> int:
    """Run the daemon of this user in the foreground; its exit code."""
    service.harden()
    service.raise_file_limit()
    supervisor = service.supervised()
    notifier = service.Notifier()
    room = handover.room()
    passed = service.inherited(stored_names=handover.NAMES)
    inherited, given = passed.listening, handover.take_up(passed.stored)
    if supervisor == "launchd":
        from .launchd import activated_sockets

        inherited += activated_sockets()
    where = places()
    log_module.setup()
    try:
        config = config_module.load(where.config_file)
        log_module.set_level(config.log.level)
        return asyncio.run(_serve(where, config, notifier, inherited, supervisor, given, room))
    except PoolError as error:
        return _failed(error, notifier, inherited, given)
    except Exception as error:
        notifier.failing(f"crashed: {type(error).__name__}; journalctl --user -u gemini-pool says more")
        raise
    finally:
        notifier.close()


def _failed(
    error: PoolError,
    notifier: service.Notifier,
    inherited: Sequence[socket.socket],
    given: Sequence[handover.Given],
) -> int:
    """Say why there is no daemon: to the terminal, to systemd, and to whoever waits on its sockets."""
    errors = error.all_errors if isinstance(error, ConfigInvalid) else (error,)
    for each in errors:
        print(f"gemini-pool: {each.message}", file=sys.stderr)
        if each.hint:
            print(f"  hint: {each.hint}", file=sys.stderr)
    notifier.failing(error.message)
    service.turn_away(inherited, error)
    for connection in given:
        service.refuse(connection.sock, error)
    handover.release(notifier)
    return error.exit_code


async def _serve(
    where: Places,
    config: Config,
    notifier: service.Notifier,
    inherited: list[socket.socket],
    supervisor: service.Supervisor,
    given: list[handover.Given],
    room: int,
) -> int:
    daemon = Daemon(where, config, notifier, supervisor, room=room)
    await daemon.start(inherited, given)
    try:
        await daemon.run()
    finally:
        await daemon.stop()
    return 0


class Daemon:
    """One running daemon. `start`, then `run` until it is told to stop, then `stop`."""

    def __init__(
        self,
        where: Places,
        config: Config,
        notifier: service.Notifier,
        supervisor: service.Supervisor = "",
        *,
        room: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """`room`: how many connections the service manager holds for our successor."""
        self._where = where
        self._notifier = notifier
        self._keeper = handover.Keeper(notifier, room)
        self._supervisor = supervisor
        self._clock = SteadyClock(clock or SystemClock())
        self._config = config
        self._started_at = self._clock.now()
        self._state = "starting"
        self._stopping = asyncio.Event()
        self._claims = contextlib.ExitStack()
        self._store: Store | None = None
        self._transport: AiohttpTransport | None = None
        self._rpc: Server | None = None
        self._gateway: Gateway | None = None
        self._tracing: Tracing | None = None
        self._managing: Managing | None = None

    # ---- start -----------------------------------------------------------------------------------------------

    async def start(self, inherited: list[socket.socket], given: Sequence[handover.Given] = ()) -> None:
        """Everything up to READY. Raises PoolError when there can be no daemon; nothing is left open then."""
        doors = list(inherited)
        own = service.take_unix(inherited, self._where.socket)
        listening = listen.inherit(own, self._where.socket) if own else listen.bind(self._where.socket)
        try:
            self._claim_state()
            self._store = Store.open(self._where.database, self._clock)
            await self._build(self._store)
            await self._open(listening, inherited)
            await self._adopt(given)
        except BaseException as error:
            if isinstance(error, PoolError):  # who is left waiting would have systemd start us again at once
                service.turn_away(doors, error)
            listening.close()
            await self.stop()
            raise
        self._state = "ready"
        self._notifier.ready()
        if given:
            handover.release(self._notifier)
        garbage.begin()
        log.info("gemini-pool %s serves %s", __version__, self._where.socket)

    def _claim_state(self) -> None:
        """The state has one owner, by whatever socket it is reached (another session may see another runtime folder).
        A predecessor that is about to end is waited for; nothing else runs yet."""
        folder, path = self._where.state_dir, self._where.database
        files.ensure_private_dir(folder)
        try:
            self._claims.enter_context(files.locked(path, timeout_s=PREDECESSOR_S))
        except OSError as error:
            problem = f"{error.filename} cannot be opened: {error.strerror}"
            raise StateUnusable(problem, hint=f"look at its disk: df {shlex.quote(str(folder))}") from None
        except FileRefused:
            who = f"the process that `fuser {shlex.quote(str(path) + '.lock')}` names"
            hint = f"stop it first: `systemctl --user stop gemini-pool`, or {who}"
            raise PoolError("already_running", f"another daemon uses {folder}", hint=hint) from None

    async def _build(self, store: Store) -> None:
        """Make every part and hand each the others that it needs."""
        self._open_debug_file(self._config.log.debug_file)
        saved = store.load()
        for warning in saved.warnings:
            log.warning("%s", warning)
        config, clock, rng = self._config, self._clock, random.Random().random
        self._transport = transport = AiohttpTransport(config.network)
        self._backends = backends.build(config.endpoints)
        pool = Pool(
            strategy=config.selection.strategy,
            rng=rng,
            allow_paid=config.selection.allow_paid,
            prefix=secrets.token_hex(3) + "-",
            methods={backend.form: backend.methods for backend in self._backends.values()},
            most_in_flight=config.gateway.max_in_flight_per_account,
        )
        pool.restore(saved.rows, clock.now())
        self._broker = broker = Broker(pool, clock, store)
        self._sealer = Sealer(self._where.state_dir, self._sealing_key(config))
        if self._sealer.idle:
            log.warning("secrets.seal is set, and nothing is sealed yet: gemini-pool secrets seal")
        context = Context(
            transport, config.endpoints, clock, self._where.state_dir, dict(os.environ), config.refresh.lead_s,
            sealer=self._sealer,
        )  # fmt: skip
        self._setup = Setup(transport, config.endpoints, clock)
        self._lifecycle = Lifecycle(broker, self._setup, context, clock=clock, rng=rng)
        tokens = self._lifecycle.tokens
        self._dispatcher = Dispatcher(
            broker, tokens, self._backends, transport, clock=clock, limits=config.gateway
        )
        quotas = Quotas()
        quotas.restore(saved.quota_history)
        self._poller = Poller(
            broker, tokens, self._code_assist(), transport, quotas=quotas, clock=clock, rng=rng,
            interval_s=config.quota.poll_interval_s,
        )  # fmt: skip
        self._reloader = Reloader(
            self._where, config, store=store, broker=broker, lifecycle=self._lifecycle,
            apply_config=self._apply_config, clock=clock,
        )  # fmt: skip
        await self._reloader.start(saved)

    async def _open(self, listening: listen.Listening, inherited: list[socket.socket]) -> None:
        services = self._rpc_services()
        self._rpc = Server(services, prefix=secrets.token_hex(2) + "-")
        await self._rpc.listen(listening)
        if use := self._use_socket():
            own = service.take_unix(inherited, use)
            await self._rpc.listen(listen.inherit(own, use) if own else listen.bind(use), "use")
        gateway_socket = self._gateway_socket()
        gateway_unix = service.take_unix(inherited, gateway_socket)
        local_keys = await self._local_keys(self._config)
        self._tracing = load_tracing(os.environ, self._clock)
        self._gateway = Gateway(self._gateway_services(services, local_keys))
        await self._gateway.start(
            listen=self._config.gateway.listen_address,
            socket_path=gateway_socket,
            tcp=service.take_tcp(inherited),
            unix=[gateway_unix] if gateway_unix else [],
        )
        for leftover in inherited:
            log.warning("a socket from the service manager is not one of ours: %s", leftover.getsockname())
            leftover.close()

    async def _adopt(self, given: Sequence[handover.Given]) -> None:
        """Go on with the connections that our predecessor left."""
        assert self._rpc is not None
        assert self._gateway is not None
        kept = 0
        for sock, state in given:
            adopt = self._rpc.adopt(sock, state) if state else self._gateway.adopt(sock)
            try:
                taken = await adopt
            except OSError:  # its client has gone meanwhile
                taken = False
            kept += taken
            if not taken:
                sock.close()
        self._rpc.expect_back()
        if given:
            log.info("%d of %d connections kept over the restart", kept, len(given))

    def _rpc_services(self) -> RpcServices:
        return RpcServices(
            broker=self._broker,
            tokens=self._lifecycle.tokens,
            dispatcher=self._dispatcher,
            poller=self._poller,
            backends=self._backends,
            clock=self._clock,
            config=lambda: self._config,
            info=self._info,
            reload=self._reloader.reload,
            state=self._state_word,
            config_errors=self._file_errors,
            managing=self._manage,
        )

    def _manage(self) -> Managing:
        """Who adds and logs in accounts; made on first use, because few daemons are asked for it in their life."""
        if self._managing is None:
            from .login.examine import Running
            from .transfer.managing import Managing

            running = Running(self._broker, self._lifecycle, self._setup, self._backends, self._clock)
            self._managing = Managing(self._where.accounts_file, running, self._reloader.reload)
        return self._managing

    def _gateway_services(self, services: RpcServices, local_keys: LocalKeys) -> GatewayServices:
        catalogue = Catalogue(
            accounts=lambda: [member.account for member in self._broker.pool.members.values()],
            named=lambda: {reading.model for reading in self._poller.quotas.all()},
            aliases=lambda: self._config.models.aliases,
            fetch=developer_api_list(
                self._need_transport(),
                lambda: self._config.endpoints.developer_api,
                self._lifecycle.tokens.headers_nowait,
            ),
            clock=self._clock,
        )
        forwarder = Forwarder(
            self._dispatcher,
            self._broker,
            self._lifecycle.tokens,
            self._backends,
            self._need_transport(),
            clock=self._clock,
        )
        return GatewayServices(
            dispatcher=self._dispatcher,
            lender=Lender(self._broker, self._lifecycle.tokens, self._clock),
            forwarder=forwarder,
            live=Live(
                forwarder,
                self._dispatcher,
                self._broker,
                self._backends,
                self._need_transport(),
                clock=self._clock,
            ),
            tracing=self._tracing,
            spool=spooling.folder_in(self._where.state_dir),
            clock=self._clock,
            settings=Settings.of(self._config),
            keys=local_keys,
            models=catalogue,
            state=self._state_word,
            status=lambda: views.status(services),
            quota=lambda: views.quota_entries(
                services, list(self._broker.pool.cooldowns.active(self._clock.now()))
            ),
        )

    # ---- life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until a signal says stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)
        waking = Waking(self._lifecycle, self._broker, self._poller, self._need_transport(), self._clock)
        try:
            async with asyncio.TaskGroup() as group:
                for task in (
                    self._lifecycle.tokens.run(),
                    self._lifecycle.run(),
                    self._broker.run(),
                    self._poller.run(),
                    self._reloader.run(),
                    waking.run(),
                    waking.ticker.run(),
                    network.watch(waking.network_changed, self._clock),
                    logind.watch(waking.sleep, self._clock),
                    self._tell_status(),
                    garbage.run(self._clock, self._busy),
                    service.feed_watchdog(self._notifier, self._clock, self._ailing),
                ):
                    group.create_task(task)
                await self._stopping.wait()
                await self._drain()
                raise _Stop
        except* _Stop:
            pass

    def _busy(self) -> bool:
        """Whether anybody waits for anything."""
        calls = self._rpc.clients() if self._rpc is not None else []
        requests = self._gateway.services.meter.in_flight if self._gateway is not None else 0
        return bool(requests or self._broker.waiting or any(client.in_flight for client in calls))

    def stop_soon(self) -> None:
        """What SIGTERM does."""
        self._stopping.set()

    def _dump(self) -> None:
        """SIGUSR1: what the daemon is busy with, into the log, whatever its level."""
        from . import dump

        pool, queue = self._broker.pool, self._broker.waiting
        open_calls = self._rpc.clients() if self._rpc is not None else []
        queues = {
            "waiting": queue,
            "leases": len(pool.leases),
            "clients": len(open_calls),
            "calls": sum(client.in_flight for client in open_calls),
        }
        for line in dump.lines(queues):
            log.warning("%s", line, extra={"event": "dump"})

    async def _drain(self) -> None:
        self._state = "draining"
        self._notifier.stopping()
        log.info("stopping")
        assert self._rpc is not None
        assert self._gateway is not None
        keep = self._keeper.keep if self._keeper.possible else None
        await self._gateway.close_listeners()
        await asyncio.gather(self._rpc.drain(DRAIN_S, keep=keep), self._gateway.stop(DRAIN_S, keep))

    async def stop(self) -> None:
        """Close what is open, the state last."""
        if self._managing is not None:
            await self._managing.aclose()
        if self._rpc is not None:
            await self._rpc.close()
        if self._gateway is not None:
            await self._gateway.stop(0.0)
        if self._tracing is not None:
            await self._tracing.aclose()
        if kept := self._keeper.send():
            log.info("%d connections are kept for the next start", kept)
        if self._transport is not None:
            await self._transport.aclose()
        if self._store is not None:
            if self._rpc is not None:
                with contextlib.suppress(StateUnusable):
                    if left := await self._broker.leave():
                        log.info("%d leases go on after the restart", left)
            await self._store.close()
        self._claims.close()

    def _ailing(self) -> str:
        """What no longer moves, for the watchdog. A full disk is told in `status`; a restart would not mend it.

        The loop moves if this is called at all, and a task that fails (the renewer) ends the daemon by itself.
        """
        return "" if self._store is None or self._store.alive else "the store's thread has ended"

    async def _tell_status(self) -> None:
        before = ""
        while True:
            now, tokens = self._clock.now(), self._lifecycle.tokens
            members = self._broker.pool.members.values()
            ready = sum(member.may_serve(now) for member in members)
            warm = sum(tokens.token_nowait(member.account.id, now) is not None for member in members)
            line = f"{ready} of {len(members)} accounts ready, {warm} tokens warm"
            line += f", {len(self._broker.pool.leases)} leases"
            if self._reloader.errors:
                line += "; the files have errors, see gemini-pool status"
            if line != before:
                self._notifier.status(line)
                before = line
            # While accounts are on their way the line is worth a look each second; then nothing wakes an idle daemon.
            coming = any(member.state in COMING and member.account.enabled for member in members)
            await self._clock.sleep(1.0 if coming else STATUS_S)

    # ---- what the parts ask ----------------------------------------------------------------------------------

    def _state_word(self) -> str:
        if self._state == "ready" and self._broker.pool.paused:
            return "paused"
        return self._state

    def _file_errors(self) -> list[wire.ConfigError]:
        """What is wrong with the files: those that a person writes, and the state that we cannot write."""
        errors = list(self._reloader.errors)
        if self._store is not None and (error := self._store.error) is not None:
            path = str(self._where.database)
            errors.append(wire.ConfigError(path, 0, 0, error.message.removeprefix(f"{path} "), error.hint))
        return errors

    async def _apply_config(self, new: Config) -> bool:
        """Put a new configuration in force, as far as a running daemon can; whether credentials must be made anew.

        Raises ConfigInvalid before anything has changed: a local key that cannot be read would lock everybody out.
        """
        local_keys = await self._local_keys(new)
        if local_keys.problems:
            wrong = [ConfigInvalid(p.message, key="gateway", hint=p.hint) for p in local_keys.problems]
            raise ConfigInvalid(wrong[0].problem, key="gateway", hint=wrong[0].hint, others=wrong[1:])
        sealing = self._sealing_key(new)
        old, self._config = self._config, new
        log_module.set_level(new.log.level)
        if old.log.debug_file != new.log.debug_file:
            self._open_debug_file(new.log.debug_file)
        self._dispatcher.limits = new.gateway
        self._poller.interval_s = new.quota.poll_interval_s
        most = new.gateway.max_in_flight_per_account
        if old.selection != new.selection or old.gateway.max_in_flight_per_account != most:
            self._broker.pool.reselect(
                strategy=new.selection.strategy,
                allow_paid=new.selection.allow_paid,
                most_in_flight=most,
            )
        if old.secrets != new.secrets:
            self._sealer.use(sealing)
        if self._gateway is not None:
            self._gateway.configure(Settings.of(new), local_keys)
        if (old.endpoints, old.network, old.refresh) == (new.endpoints, new.network, new.refresh):
            return False
        self._need_transport().set_proxy(new.network.proxy)
        self._backends.update(backends.build(new.endpoints))
        self._poller.backend = self._code_assist()
        self._setup.endpoints = new.endpoints
        self._lifecycle.context = replace(
            self._lifecycle.context, endpoints=new.endpoints, lead_s=new.refresh.lead_s
        )
        return True

    @staticmethod
    def _open_debug_file(path: str) -> None:
        """What cannot be written is told, and is no reason to stop."""
        try:
            log_module.set_debug_file(path)
        except (OSError, PoolError) as error:
            log.error("[log] debug_file: %s", error)

    def _code_assist(self) -> CodeAssist:
        backend = self._backends[Backend.CODE_ASSIST]
        assert isinstance(backend, CodeAssist)
        return backend

    def _sealing_key(self, config: Config) -> Source | None:
        return sealing_key(config.secrets.seal, environ=os.environ, state_dir=self._where.state_dir)

    async def _local_keys(self, config: Config) -> LocalKeys:
        return await keys.load(config.gateway, state_dir=self._where.state_dir, environ=os.environ)

    def _use_socket(self) -> Path | None:
        given = self._config.rpc.use_socket
        return self._where.socket.parent / config_module.expanded(given) if given else None

    def _gateway_socket(self) -> Path:
        given = self._config.gateway.socket
        return config_module.expanded(given) if given else self._where.gateway_socket

    def _need_transport(self) -> AiohttpTransport:
        assert self._transport is not None
        return self._transport

    def _info(self) -> wire.DaemonInfo:
        now, gateway = self._clock.now(), self._gateway
        return wire.DaemonInfo(
            version=__version__,
            protocol=wire.PROTOCOL,
            pid=os.getpid(),
            python=sys.version.split()[0],
            started_at=self._started_at,
            uptime_s=now - self._started_at,
            config_file=str(self._where.config_file),
            accounts_file=str(self._where.accounts_file),
            state_dir=str(self._where.state_dir),
            socket=str(self._where.socket),
            gateway_socket=gateway.socket if gateway else "",
            gateway_url=gateway.url if gateway else "",
            gateway_error=gateway.error if gateway else "",
            supervised=self._supervisor,
        )


class _Stop(Exception):
    """Not an error: it ends the TaskGroup."""
