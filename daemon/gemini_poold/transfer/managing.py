"""Everything that changes which accounts there are, behind one face: what `ipc.accounts.Managing` asks for."""

from __future__ import annotations

from pathlib import Path

from ..accounts.store import AccountsFile
from ..login.accounts import AccountAdmin
from ..login.examine import Examiner, Running
from ..login.keeping import Keeper, Reload
from ..login.login import Login
from .archive import Archive
from .exporter import Exporter
from .importer import Importer


class Managing:
    """Built once by the composition root. `aclose` ends logins that are still waited for."""

    def __init__(self, accounts_file: Path, running: Running, reload: Reload) -> None:
        lifecycle, pool = running.lifecycle, running.broker.pool
        keeper = Keeper(AccountsFile(accounts_file), lambda: lifecycle.context, reload)
        examiner = Examiner(running)
        logins, admin = Login(keeper, running, examiner), AccountAdmin(keeper, running, examiner)
        importer = Importer(keeper, lambda: {m.id: m.sub for m in pool.members.values()})
        exporter, archive = Exporter(keeper, pool.project_of), Archive(keeper)
        self.login, self.login_finish, self.aclose = logins.start, logins.finish, logins.aclose
        self.add, self.remove = admin.add, admin.remove
        self.enable, self.disable, self.verify = admin.enable, admin.disable, admin.verify
        self.import_logins = importer.run
        self.export_opencode = exporter.opencode
        self.export_archive, self.import_archive = archive.export, archive.restore
        self.retry = lifecycle.retry
