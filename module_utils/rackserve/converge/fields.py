"""One check per field name: the value in its plain form, or ValueError saying how to write it."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Callable, Union

CONTENT_LIMIT_BYTES = 8 * 1024 * 1024
_MODE = re.compile(r"0?[0-7]{3,4}\Z")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\$?\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*\Z")
_UNIT = re.compile(
    r"[A-Za-z0-9_:.\\][A-Za-z0-9_:.\\@-]*\.(service|socket|timer|target|mount|automount|path|slice|swap|scope)\Z"
)
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*\Z")
_DEVICE = re.compile(r"[A-Za-z0-9_]+\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    try:
        value.encode()
    except UnicodeError:
        raise ValueError("must be text that UTF-8 can write") from None
    return str(value)


def _line(value: Any) -> str:
    text = _text(value)
    if not text or _CONTROL.search(text):
        raise ValueError("must be one non-empty line without control characters")
    return text


def absolute_path(value: Any) -> str:
    """An absolute, normalised path other than /."""
    text = _line(value)
    if not text.startswith("/") or text.startswith("//") or posixpath.normpath(text) != text or text == "/":
        raise ValueError("must be an absolute path without ., .., // or a slash at the end")
    return text


def unit_name(value: Any) -> str:
    """A systemd unit's full name; no template without an instance."""
    text = _line(value)
    if not _UNIT.match(text) or "@." in text:
        raise ValueError("must be a full unit name such as x.service (a template needs its instance)")
    return text


def _content(value: Any) -> str:
    text = _text(value)
    if len(text.encode()) > CONTENT_LIMIT_BYTES:
        raise ValueError(f"is larger than {CONTENT_LIMIT_BYTES // 2**20} MiB; let a task of the role copy the file")
    return text


def _mode(value: Any) -> int:
    if not isinstance(value, str) or not _MODE.match(value):
        raise ValueError('must be a quoted octal mode such as "0644"')
    return int(value, 8)


def _account(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _NAME.match(text):
        raise ValueError("must be a user or group name, or a numeric id")
    return str(text)


def _package(value: Any) -> str:
    if not isinstance(value, str) or not _PACKAGE.match(value):
        raise ValueError("must be a package name")
    return str(value)


def _knob_value(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    words = text.split()
    if not words:
        raise ValueError("must not be empty")
    return " ".join(words)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("must be a whole number, 0 or more")
    return value


def _cpus(value: Any) -> str:
    if value == "local":
        return "local"
    if not isinstance(value, str) or not _CPUS.match(value):
        raise ValueError("must be local, or a list of CPUs such as 0-15,32")
    return value


def _device(value: Any) -> str:
    if not isinstance(value, str) or not _DEVICE.match(value):
        raise ValueError("must be the name of an RDMA device such as mlx5_0")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.match(value):
        raise ValueError("must be 64 lower-case hexadecimal digits")
    return str(value)


def _command(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
        raise ValueError("must be a list of words, one command")
    if not any("{}" in word for word in value):
        raise ValueError('must name the file to judge as "{}"')
    return [str(word) for word in value]


def _expression(value: Any) -> str:
    text = _text(value)
    try:
        re.compile(text)
    except re.error as problem:
        raise ValueError(f"is no regular expression: {problem}") from None
    return text


def _accounts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("must be a list of group names")
    return [_account(entry) for entry in value]


def _settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("must be an object of settings by name")
    return value


def _units(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("must be a list of unit names")
    return [unit_name(entry) for entry in value]


def _running_config(value: Any) -> str:
    if value == "environ":
        return "environ"
    try:
        return absolute_path(value)
    except ValueError:
        raise ValueError("must be environ or an absolute path") from None


Check = Callable[[Any], Union[str, int, bool, "list[str]", "dict[str, Any]"]]
CHECKS: dict[str, Check] = {
    "path": absolute_path,
    "content": _content,
    "mode": _mode,
    "owner": _account,
    "group": _account,
    "groups": _accounts,
    "validate": _command,
    "gated_by": unit_name,
    "hash_excludes": _expression,
    "target": _line,
    "value": _knob_value,
    "enabled": _boolean,
    "active": _boolean,
    "running_config": _running_config,
    "version": _line,
    "uid": _number,
    "home": absolute_path,
    "shell": absolute_path,
    "optional": _boolean,
    "device": _device,
    "cpus": _cpus,
    "sha256": _sha256,
    "index": _number,
    "settings": _settings,
    "units": _units,
    "applied_by": _line,
}
NAME_CHECKS: dict[str, Check] = {"unit": unit_name, "package": _package, "hold": _package, "user": _account}
