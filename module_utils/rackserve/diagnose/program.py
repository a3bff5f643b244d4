"""On the controller: from what hosts returned, or from an input, to causes, a report and files."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import bundle
from .case import Case, read_host
from .catalogue import RULES
from .intake import IntakeError, read_input
from .rank import diagnose
from .redact import Redactor
from .report import lines


class DiagnoseError(Exception):
    """Nothing can be said or written; one line says what, where and how to fix it."""


def gather(hostvars: Mapping[str, Any], hosts: list[str]) -> dict[str, Any]:
    """{host: {sources, readings, plan, lost}} of what the playbook registered; hosts that did not answer say why."""
    found = {}
    for name in hosts:
        given = hostvars[name].get("rackserve_evidence") or {}
        refused = hostvars[name].get("rackserve_evidence_failed") or ""
        if isinstance(given.get("sources"), list):
            found[name] = {key: given.get(key) for key in ("sources", "readings", "plan")}
        elif given.get("unreachable"):
            found[name] = {"lost": str(given.get("msg") or "no answer")}
        elif given or refused:
            found[name] = {"lost": f"host_evidence: {refused or given.get('msg') or 'it failed'}"}
    return found


def examine(
    hosts: Mapping[str, Any], secrets: Mapping[str, str], options: Mapping[str, Any], *, check: bool
) -> dict[str, Any]:
    """{causes, lines, redacted, written}; options: {input, output, bundle, inventory}. Raises DiagnoseError."""
    redactor = Redactor(str(value) for value in secrets.values())
    now_s = time.time()
    if options.get("input"):
        try:
            found = read_input(Path(options["input"]))
        except IntakeError as problem:
            raise DiagnoseError(str(problem)) from None
        case = Case(found)
    else:
        case = Case(read_host(name, given) for name, given in hosts.items())
    if not case.hosts:
        raise DiagnoseError(
            "no host was asked: the inventory names none in gpu, gateway or monitoring, or --limit none"
        )
    causes = redactor.deep(diagnose(case, RULES, str(options.get("inventory") or "")))
    told = [redactor.text(line) for line in lines(case, causes)]
    written = []
    if options.get("bundle"):
        files = bundle.contents(case, causes, told, redactor, now_s)
        written.append((Path(options["bundle"]), bundle.pack(files, now_s)))
    if options.get("output"):
        written.append((Path(options["output"]), (json.dumps(causes, indent=1, ensure_ascii=False) + "\n").encode()))
    for path, content in written:
        try:
            if not check:
                bundle.write_file(path, content)
        except OSError as problem:
            raise DiagnoseError(
                f"cannot write {path}: {problem.strerror}; name a file in a folder that exists"
            ) from None
    return {"causes": causes, "lines": told, "redacted": redactor.count, "written": [str(path) for path, _ in written]}
