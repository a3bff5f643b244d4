"""Why a host could not be worked on: the words of ssh, sudo and Ansible turned into what, where and how to fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .findings import Finding, finding

_CONSOLE = "look at it by its console"
_NOTE_KEY = "compare its fingerprint at its console, then: ssh-keyscan -p {port} {address} >> {known_hosts}"


class _Known(NamedTuple):
    """``words`` are searched in the message; its named groups and those of ``_place`` fill ``why`` and ``fix``."""

    code: str
    words: re.Pattern[str]
    why: str
    fix: str


def _known(code: str, words: str, why: str, fix: str) -> _Known:
    return _Known(code, re.compile(words, re.DOTALL), why, fix)


# The first that fits counts: ssh says more than one thing, the cause before its consequences.
_UNREACHED = [
    _known(
        "host-key-changed",
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
        "it shows another host key than the one noted in {known_hosts}",
        "if it was installed anew: ssh-keygen -f {known_hosts} -R {key_name}, " + _NOTE_KEY + "; if not, somebody "
        "else answers there",
    ),
    _known(
        "host-key-unknown",
        r"No \S+ host key is known|Host key verification failed",
        "no host key of it is noted in {known_hosts}",
        _NOTE_KEY,
    ),
    _known(
        "key-file-open",
        r"Permissions (?P<mode>\d+) for '(?P<key>[^']+)' are too open|UNPROTECTED PRIVATE KEY",
        "ssh does not use the key {key}: others may read it",
        "chmod 600 {key}, and replace the key if somebody may have copied it",
    ),
    _known(
        "key-file-missing",
        r"Identity file (?P<key>\S+) not accessible: No such file",
        "the key {key} is not there",
        "correct ansible_ssh_private_key_file",
    ),
    _known(
        "login-refused",
        r"Permission denied \(|Too many authentication failures",
        "it refuses user {user} with our key",
        "add the key to that user's ~/.ssh/authorized_keys, or correct ansible_user or ansible_ssh_private_key_file",
    ),
    _known(
        "ssh-silent",
        r"during banner exchange|Timeout, server \S+ not responding",
        "the connection opens and SSH says nothing",
        f"it hangs or is overloaded: {_CONSOLE} (load, memory, disk), restart sshd or the host",
    ),
    _known(
        "ssh-down",
        r"Connection refused",
        "nothing listens there",
        "start ssh.service on it, or correct ansible_port",
    ),
    _known(
        "no-answer",
        r"No route to host|Network is unreachable|[Cc]onnection timed out|Operation timed out",
        "nothing answers",
        "check its power, its network and ansible_host",
    ),
    _known(
        "name-unknown",
        r"Could not resolve hostname",
        "no address is known for that name",
        "write its IP address in ansible_host",
    ),
    _known(
        "ssh-closed",
        r"Connection closed by|Connection reset by|kex_exchange_identification|Broken pipe|closed by remote host",
        "it closes the connection",
        f"{_CONSOLE}: journalctl -u ssh says why (MaxStartups, a full disk, a ban, a reboot)",
    ),
]
# Said by a host that was reached.
_REACHED = [
    _known(
        "no-sudo",
        r"[Mm]issing sudo password|sudo: .*password is required|is not in the sudoers file|sudo: (?:not found|command "
        r"not found)|may not run sudo|not allowed to execute|waiting for (?:privilege escalation|become)|sudo\S*: No "
        r"such file",
        "user {user} may not become root there",
        "give that user sudo without a password, or set ansible_user: root",
    ),
    _known(
        "not-root",
        r"\(Permission denied\); run as root",
        "user {user} is not root there",
        "set ansible_become: true for a user who may use sudo without a password, or set ansible_user: root",
    ),
    _known(
        "python-missing",
        r"The module interpreter '(?P<python>[^']+)' was not found|(?P<python2>\S*python[\d.]*): (?:not found|No such)",
        "there is no {python}",
        "install python3, or set ansible_python_interpreter to Python 3.9 or newer",
    ),
    _known(
        "python-too-old",
        r"requires a minimum of Python version [\d.]+\. Current version: (?P<version>[\d.]+)|SyntaxError: future "
        r"feature annotations",
        "its Python is {version}",
        "set ansible_python_interpreter to Python 3.9 or newer",
    ),
    _known(
        "host-slow",
        r"failed to execute in the expected time frame \((?P<seconds>[\d.]+)\)|"
        r"Timed out after (?P<seconds2>[\d.]+) s",
        "it did not finish within {seconds} s",
        f"it hangs or is overloaded: {_CONSOLE} (load, memory, a network mount that does not answer)",
    ),
    _known(
        "no-space",
        r"No space left on device",
        "its file system is full",
        "free space there; df -h and df -i say where",
    ),
    _known(
        "read-only",
        r"(?:OSError|IOError|mkdir|touch|sh|cannot)[^\n]*Read-only file system",
        "its file system is read-only",
        f"{_CONSOLE}: journalctl -k says why it was mounted so",
    ),
]


_BEFORE_THE_MODULE = re.compile(
    r"module interpreter|minimum of Python|expected time frame|[Tt]imed out|Timeout \(|sudo|privilege escalation|become"
    r"|run as root"
)


def _place(host: str, variables: Mapping[str, Any]) -> dict[str, str]:
    address = str(variables.get("ansible_host") or host)
    port = str(variables.get("ansible_port") or 22)
    arguments = " ".join(str(variables.get(f"ansible_ssh_{part}_args") or "") for part in ("common", "extra"))
    noted = re.search(r"UserKnownHostsFile=(\S+)", arguments)
    return {
        "address": address,
        "port": port,
        "key_name": address if port == "22" else f"[{address}]:{port}",
        "user": str(variables.get("ansible_user") or "of this login"),
        "known_hosts": noted.group(1) if noted else "~/.ssh/known_hosts",
        "key": str(variables.get("ansible_ssh_private_key_file") or "of this login"),
        "python": str(variables.get("ansible_python_interpreter") or "python3"),
        "version": "too old",
        "seconds": "the time allowed",
    }


def transport_text(result: Mapping[str, Any], reached: bool) -> str:
    """Return what a failed result says of the way to the module, and empty text where the module itself had its say."""
    message = str(result.get("msg") or "")
    if not reached:
        return message
    said = [str(result[name]) for name in ("module_stderr", "module_stdout") if result.get(name)]
    return "\n".join([message, *said]) if said or _BEFORE_THE_MODULE.search(message) else ""


def explain(message: str, host: str, variables: Mapping[str, Any], reached: bool) -> Finding | None:
    """Return the finding for a message of ssh, sudo or Ansible about ``host``; None where it is none that we know.

    ``variables``: the host's connection variables (ansible_host, ansible_port, ansible_user, …), templated.
    ``reached``: the host answered, and what failed came after that.
    """
    for known in _REACHED if reached else [*_UNREACHED, *_REACHED]:
        match = known.words.search(message)
        if match:
            said = {name.rstrip("2"): text for name, text in match.groupdict().items() if text}
            values = {**_place(host, variables), **said}
            where = f"{host} ({values['address']} port {values['port']})"
            return finding("error", known.code, where, known.why.format(**values), known.fix.format(**values))
    return None


class LeftOut:
    """Hosts that a run went on without, and why, as short as a line takes."""

    def __init__(self) -> None:
        """Nobody so far."""
        self._reasons: dict[str, str] = {}

    def note(self, host: str, reason: str) -> None:
        """``host`` is out; the first reason stays."""
        self._reasons.setdefault(host, reason)

    def line(self, went_on: int) -> str:
        """One line for the end of a run that ``went_on`` other hosts finished; empty where nobody was left out."""
        if not self._reasons or not went_on:
            return ""
        named = ", ".join(f"{host} ({reason})" for host, reason in sorted(self._reasons.items()))
        return (
            f"LEFT AS IT WAS from there on: {named}. {went_on} other host(s) went on. Mend what stands above, then run "
            "the same again."
        )


def codes(message: Any) -> str:
    """The codes of the findings in a failed task's message (text, or a list of lines); empty where it has none."""
    lines = message if isinstance(message, list) else str(message).splitlines()
    found = (re.match(r"(?:error )?\[?([a-z]+(?:-[a-z0-9]+)+)\]?:? ", str(line)) for line in lines)
    return ", ".join(dict.fromkeys(match.group(1) for match in found if match))
