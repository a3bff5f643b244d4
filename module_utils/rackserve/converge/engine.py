"""One pass over all documents: validate, compare, gate, and (outside check mode) apply."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .apply import apply_findings, check_applicable, wants_reload
from .compare import compare_item
from .contents import check_secrets, redact, resolve_contents
from .document import Item, parse_documents
from .errors import ConvergeError, DocumentError
from .finding import Finding, Seen
from .gate import judge_gates, reload_findings, units_behind, units_to_show
from .host import Host, Run
from .kernel import unjudged


def converge(
    documents: Any,
    *,
    secrets: Mapping[str, str] | None,
    root: Path,
    run: Run | None,
    apply_gated: Collection[str] = (),
    check: bool = True,
) -> dict[str, Any]:
    """Compare the host under `root` with `documents`; outside `check`, apply what converge applies.

    secrets: name to value; None where they are not known, which only a comparison may be (files are then compared
    around them). run: takes words, returns (exit code, stdout, stderr); None where no systemd answers for `root`.
    apply_gated: units whose gated files are written although they run.

    Returns {changed, diff: [{before_header, after_header, before, after}], roles: {role: {dirty, changed: [id],
    differs: [{id, kind, why}]}}, dirty_roles: [role], stale: [{unit, role, why}], inactive: [{unit, role}],
    not_judged: [{role, id, why}], reload_needed, overrides: {role: [id that the site changed or removed]}}.
    Raises DocumentError before anything is touched; ItemError or ConvergeError, with `partial` holding the same keys
    for what was done, when the host does not follow.
    """
    if secrets is not None:
        check_secrets(secrets)
    elif not check:
        raise DocumentError("secrets: must be given to apply; {} where there are none")
    items = parse_documents(documents)
    contents = resolve_contents(items, secrets)
    host = Host(root, run)
    seen = Seen(host, contents, secrets or {})
    try:
        result = _converge(items, seen, _roles(documents), apply_gated, check)
    except ConvergeError as problem:
        problem.args = (redact(str(problem), secrets),)
        raise
    result["overrides"] = {each["role"]: each["overrides"] for each in documents if each.get("overrides")}
    return result


def _roles(documents: list[dict[str, Any]]) -> list[str]:
    return [document["role"] for document in documents]


def _converge(
    items: list[Item], seen: Seen, roles: list[str], apply_gated: Collection[str], check: bool
) -> dict[str, Any]:
    host = seen.host
    host.load_units(units_to_show(items))
    findings = [finding for finding in (compare_item(item, seen) for item in items) if finding is not None]
    gate = judge_gates(items, findings, seen.contents, host, apply_gated)
    held = {(finding.item.role, finding.item.id) for finding in gate.held}
    behind = units_behind(gate.held, host)
    findings += reload_findings(items, findings, behind)
    findings = [finding for finding in findings if (finding.item.role, finding.item.id) not in held]
    todo = [finding for finding in findings if _appliable(finding)]
    reload = host.run is not None and (bool(behind) or wants_reload(todo))
    result: dict[str, Any] = {
        "roles": {role: {"dirty": False, "changed": [], "differs": []} for role in roles},
        "stale": gate.stale,
        "inactive": gate.inactive,
        "not_judged": gate.not_judged + unjudged(items, host),
    }
    for finding in findings:
        item = finding.item
        result["roles"][item.role]["dirty"] = True
        result["roles"][item.role]["differs"].append({"id": item.id, "kind": item.kind, "why": finding.why})
    result["dirty_roles"] = [role for role in roles if result["roles"][role]["dirty"]]
    if check:
        return _finish(result, todo, reload)
    done: list[Finding] = []
    try:
        check_applicable(todo, host)
        apply_findings(todo, seen, reload, done.append)
    except ConvergeError as problem:
        problem.partial = _finish(result, [finding for finding in todo if finding in done], False)
        raise
    return _finish(result, todo, reload)


def _appliable(finding: Finding) -> bool:
    """Whether converge changes something for a finding: of a unit, only its enablement and what systemd has read."""
    if not finding.item.applied:
        return False
    return finding.item.kind != "unit" or bool(finding.before)


def _finish(result: dict[str, Any], done: list[Finding], reload: bool) -> dict[str, Any]:
    """The result with what was (in check mode: would be) changed."""
    for finding in done:
        result["roles"][finding.item.role]["changed"].append(finding.item.id)
    headers = [f"{finding.item.target} ({finding.item.role}: {finding.item.id})" for finding in done]
    result["diff"] = [
        {"before_header": header, "after_header": header, "before": finding.before, "after": finding.after}
        for header, finding in zip(headers, done)
    ]
    result["changed"] = bool(done) or reload
    result["reload_needed"] = reload
    return result
