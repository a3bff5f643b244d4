"""What a host is like now: paths under a root, accounts, packages and units, each source read once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

from .errors import ConvergeError

if TYPE_CHECKING:
    from ..gpu.settings.look import Looker

Run = Callable[[list[str]], tuple[int, str, str]]
UNIT_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NeedDaemonReload"
RUNNING_STATES = ("active", "activating", "deactivating", "reloading", "refreshing")
_PASSWD_FIELDS = 7
_GROUP_FIELDS = 4
_LINK_LIMIT = 40


class User(NamedTuple):
    """One line of passwd."""

    uid: int
    gid: int
    home: str
    shell: str


class Package(NamedTuple):
    """dpkg's record: wanted state (install, hold), present state (installed) and version."""

    wanted: str
    present: str
    version: str


class Unit(NamedTuple):
    """What systemd says of one unit."""

    load: str
    active: str
    sub: str
    file_state: str
    main_pid: int
    need_reload: bool

    @property
    def running(self) -> bool:
        """Whether a process of it may run: active, coming up, going down or reloading."""
        return self.active in RUNNING_STATES


class Host:
    """Lazy reader of one host. `run` None: no systemd to ask (a copied tree), so no unit is known or running."""

    def __init__(self, root: Path, run: Run | None) -> None:
        self.root = root
        self.run = run
        self.units: dict[str, Unit] = {}
        self._users: dict[str, User] | None = None
        self._groups: dict[str, tuple[int, tuple[str, ...]]] | None = None
        self._packages: dict[str, Package] | None = None
        self._gpus: Looker | None = None

    def at(self, path: str) -> Path:
        """`path` under the root. Links among its parents are followed inside the root, the last part never."""
        if self.root == Path("/"):
            return Path(path)
        pending = path.split("/")[:0:-1]
        here: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = here[:-1]
                continue
            candidate = self.root.joinpath(*here, part)
            if not pending or not candidate.is_symlink():
                here.append(part)
                continue
            links += 1
            if links > _LINK_LIMIT:
                raise ConvergeError(f"{path}: too many symbolic links under {self.root}; mend the loop")
            target = str(candidate.readlink())
            if target.startswith("/"):
                here = []
            pending.extend(reversed(target.split("/")))
        return self.root.joinpath(*here)

    def uid(self, name: str) -> int | None:
        """Numeric id of a user name (or of a number); None where there is no such user."""
        if name.isdigit():
            return int(name)
        user = self.users.get(name)
        return user.uid if user else None

    def gid(self, name: str) -> int | None:
        """Numeric id of a group name (or of a number); None where there is no such group."""
        if name.isdigit():
            return int(name)
        group = self.groups.get(name)
        return group[0] if group else None

    @property
    def users(self) -> dict[str, User]:
        """etc/passwd by name."""
        if self._users is None:
            self._users = {}
            for fields in self._table("/etc/passwd", _PASSWD_FIELDS):
                if fields[2].isdigit() and fields[3].isdigit():
                    self._users[fields[0]] = User(int(fields[2]), int(fields[3]), fields[5], fields[6])
        return self._users

    @property
    def groups(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """etc/group by name: id and members."""
        if self._groups is None:
            self._groups = {}
            for fields in self._table("/etc/group", _GROUP_FIELDS):
                if fields[2].isdigit():
                    self._groups[fields[0]] = (int(fields[2]), tuple(name for name in fields[3].split(",") if name))
        return self._groups

    def _table(self, path: str, width: int) -> list[list[str]]:
        rows = [line.split(":") for line in self.read_text(path).splitlines()]
        return [row for row in rows if len(row) == width]

    @property
    def packages(self) -> dict[str, Package]:
        """dpkg's status file by package name."""
        if self._packages is None:
            self._packages = {}
            for paragraph in self.read_text("/var/lib/dpkg/status").split("\n\n"):
                fields = dict(
                    line.split(": ", 1)
                    for line in paragraph.splitlines()
                    if line.startswith(("Package: ", "Status: ", "Version: "))
                )
                wanted, _, present = fields.get("Status", "").partition(" ok ")
                package = Package(wanted, present, fields.get("Version", ""))
                name = fields.get("Package", "")
                # One name can stand twice, once an architecture: the installed one counts.
                if name not in self._packages or package.present == "installed":
                    self._packages[name] = package
        return self._packages

    @property
    def gpus(self) -> Looker:
        """Who looks at this host's GPUs."""
        if self._gpus is None:
            from ..gpu.settings.look import Looker  # noqa: PLC0415 - slow to import, and few hosts have such items

            self._gpus = Looker(self.root)
        return self._gpus

    def read_text(self, path: str) -> str:
        """Text of a small file, empty where it is missing; ConvergeError where it cannot be read."""
        try:
            return self.at(path).read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as problem:
            raise ConvergeError(f"{path}: cannot be read ({problem.strerror}); run as root") from None

    def load_units(self, names: list[str]) -> None:
        """Ask systemd about all of `names` in one call. Raises ConvergeError with systemd's own words."""
        if not names or self.run is None:
            return
        code, out, err = self.run(["systemctl", "show", "-p", UNIT_PROPERTIES, *names])
        if code != 0:
            raise ConvergeError(f"systemctl show failed ({code}): {one_line(err or out)}")
        blocks = [block for block in out.strip().split("\n\n") if block.strip()]
        if len(blocks) != len(names):
            raise ConvergeError(
                f"systemctl show answered for {len(blocks)} of {len(names)} units; check the unit names"
            )
        for name, block in zip(names, blocks):
            fields = dict(line.partition("=")[::2] for line in block.splitlines())
            pid = fields.get("MainPID", "0")
            self.units[name] = Unit(
                fields.get("LoadState", ""),
                fields.get("ActiveState", ""),
                fields.get("SubState", ""),
                fields.get("UnitFileState", ""),
                int(pid) if pid.isdigit() else 0,
                fields.get("NeedDaemonReload", "no") == "yes",
            )


def one_line(text: str, limit: int = 600) -> str:
    """A command's output folded into one line of at most `limit` characters, its end kept."""
    folded = " | ".join(line.strip() for line in text.splitlines() if line.strip())
    return folded if len(folded) <= limit else "… " + folded[-limit:]
