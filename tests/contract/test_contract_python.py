"""Python that runs on hosts, and what no file of the repository may hold."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract_support import REPO, here, text_files

PACKAGE = sorted((REPO / "module_utils/rackserve").rglob("*.py"))
ON_HOSTS = [*PACKAGE, *sorted((REPO / "library").glob("*.py"))]
# Modules that a Python between 3.9 and 3.13 lacks.
NOT_EVERYWHERE = {
    "tomllib", "aifc", "asynchat", "asyncore", "audioop", "binhex", "cgi", "cgitb", "chunk", "crypt", "distutils",
    "formatter", "imghdr", "imp", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "parser", "pipes", "smtpd",
    "sndhdr", "spwd", "sunau", "symbol", "telnetlib", "uu", "xdrlib",
}  # fmt: skip
# Attributes and keywords newer than Python 3.9.
NEWER_NAMES = {
    "pairwise",
    "batched",
    "file_digest",
    "hardlink_to",
    "bit_count",
    "chdir",
    "walk_packages",
    "add_note",
    "UTC",
}
NEWER_KEYWORDS = {"zip": {"strict"}, "dataclass": {"slots", "kw_only"}, "rmtree": {"onexc"}}
TYPES = {"str", "int", "float", "bool", "bytes", "dict", "list", "set", "tuple", "Path"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of absolutely imported modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def annotations(tree: ast.AST) -> set[int]:
    """Identities of all nodes that are only annotations, which are never evaluated."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            roots.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            roots.append(node.returns)
    return {id(part) for root in roots if root for part in ast.walk(root)}


def too_new(source: str) -> list[str]:
    """What Python 3.9 would refuse or not know."""
    tree = ast.parse(source, feature_version=(3, 9))
    found, quiet = [], annotations(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and id(node) not in quiet:
            sides = (node.left, node.right)
            if any(isinstance(side, ast.Name) and side.id in TYPES for side in sides) or any(
                isinstance(side, ast.Constant) and side.value is None for side in sides
            ):
                found.append(f"line {node.lineno}: a union of types is evaluated")
        elif isinstance(node, ast.Attribute) and node.attr in NEWER_NAMES:
            found.append(f"line {node.lineno}: {node.attr}")
        elif isinstance(node, ast.Match):
            found.append(f"line {node.lineno}: match")
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            newer = NEWER_KEYWORDS.get(name, set()) & {keyword.arg for keyword in node.keywords}
            found += [f"line {node.lineno}: {name}({word}=)" for word in newer]
    return found


@pytest.mark.parametrize("path", ON_HOSTS, ids=here)
def test_hosts_with_python_3_9_can_run_it(path: Path) -> None:
    source = path.read_text("utf-8")
    assert too_new(source) == []
    if len(source.splitlines()) > 1:
        assert "from __future__ import annotations" in source


def test_what_is_too_new_is_seen() -> None:
    assert too_new("x: int | None = 1\ndef f(a: str | None) -> int | str: ...\ny = 1 | 2\n") == []
    assert len(too_new("A = int | str\nisinstance(1, str | None)\nzip(a, b, strict=True)\n")) == 3
    assert len(too_new("hashlib.file_digest(f, 'x')\n@dataclass(slots=True)\nclass A: ...\n")) == 2
    with pytest.raises(SyntaxError):
        too_new("match x:\n  case 1: ...\n")


@pytest.mark.parametrize("path", PACKAGE, ids=here)
def test_the_core_needs_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    tops = {name.split(".")[0] for name in imports(tree)}
    assert tops - (set(sys.stdlib_module_names) - NOT_EVERYWHERE) == set()


@pytest.mark.parametrize("path", PACKAGE, ids=here)
def test_files_of_the_core_stay_readable(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 450


@pytest.mark.parametrize("path", sorted((REPO / "library").glob("*.py")), ids=here)
def test_modules_import_ansible_and_the_core_only(path: Path) -> None:
    for name in imports(ast.parse(path.read_text("utf-8"))):
        top = name.split(".")[0]
        ours = name == "ansible.module_utils.basic" or name.startswith("ansible.module_utils.rackserve")
        assert ours or top in set(sys.stdlib_module_names) - NOT_EVERYWHERE, name


# Written in pieces, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of somebody's machine": re.compile(
        r"(?<![\w.}$>/-])/(home/(?!me\b)\w+|" + "Users" + r"/\w+|root/(?!\.ssh)|work" + r"/\w|farm" + r"/)"
    ),
    "an em dash": re.compile("\N{EM DASH}"),
    "an error hidden from the shell": re.compile(r"\|\| *(true|:) *$", re.MULTILINE),
    "a skipped test": re.compile(r"pytest\.(mark\.)?(skip|xfail)" + r"(if)?\b"),
    "a silenced linter without a reason": re.compile(r"#\s*noqa" + r"(?!:? ?[\w\[\]-]+(, ?[A-Z]+\d+)* *[-#:(] ?\w)"),
    "an index of packages": re.compile(r"^\s*--?(extra-)?index" + r"-url|^-i https?:", re.MULTILINE),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    found = []
    for path, text in text_files():
        if path == Path(__file__):
            continue
        for match in FORBIDDEN[what].finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{here(path)}:{line}: {match.group().strip()}")
    assert not found, "\n".join(found)


def test_what_is_forbidden_is_seen() -> None:
    # Lines that must be found: examples for the patterns, nothing here is skipped or hidden.
    seen = {
        "a path of somebody's machine": ["see /home/joe/x", "'/root/x'", "(/Users/joe)"],
        "an em dash": ["a \N{EM DASH} b"],
        "an error hidden from the shell": ["rm x || true", "rm x ||:"],
        "a skipped test": ["@pytest.mark.skipif(x)", "pytest.skip('x')"],
        "a silenced linter without a reason": ["x  # noqa", "x  # noqa: E501"],
        "an index of packages": ["--index-url https://x", "--extra-index-url y"],
    }
    assert set(seen) == set(FORBIDDEN)
    for what, lines in seen.items():
        assert all(FORBIDDEN[what].search(line) for line in lines), what
    for fine in (
        "root/.ssh/x",
        "x  # noqa: E402 - needs the path above",
        "a {folder}/build/x",
        "# noqa: yaml[line] # why",
    ):
        assert not any(pattern.search(fine) for pattern in FORBIDDEN.values()), fine
