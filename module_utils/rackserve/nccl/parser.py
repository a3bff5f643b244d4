"""NCCL's own parser of topology files (xml.cc of 2.28.9 to 2.30.7), rule by rule. It is no XML parser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_TEXT = 253  # MAX_STR_LEN 255, less the terminator and the character that ends the text
MAX_ATTRIBUTES = 16
MAX_ELEMENTS = 255
# Up to 2.28.9; 640 since, which 255 elements cannot reach.
MAX_CHILDREN = 128
VERSION = 1

# What NCCL looks for inside an element; everything else is ignored with all that it holds.
CHILDREN: dict[str, tuple[str, ...]] = {
    "": ("system",),
    "system": ("cpu",),
    "cpu": ("pci", "nic"),
    "pci": ("pci", "gpu", "nic", "pcilink"),
    "gpu": ("nvlink", "c2c"),
    "nic": ("net",),
}
_OPEN, _CLOSE, _SINGLE, _END = "open", "close", "single", "end"
_STRTOL = re.compile(r"[ \t\n\v\f\r]*([+-]?)(0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]*)")


class Refused(Exception):
    """NCCL would stop here: the line (from 1), why, and how to mend it."""

    def __init__(self, line: int, reason: str, fix: str) -> None:
        super().__init__(f"line {line}: {reason}; {fix}")
        self.line, self.reason, self.fix = line, reason, fix


@dataclass
class Element:
    """An element that NCCL keeps: name, attributes in their order, children, the line it begins on."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    line: int = 0


@dataclass
class Parsed:
    """Elements at the top of a file, and what NCCL passes over: (line, reason, fix)."""

    tops: list[Element]
    ignored: list[tuple[int, str, str]]


def parse(data: bytes) -> Parsed:
    """Read a file as NCCL does. Raises Refused where NCCL would stop with an error."""
    reader = _Reader(data)
    top = Element("")
    reader.load(top, _Node(_OPEN, "", {}, 1))
    return Parsed(top.children, reader.ignored)


def as_int(text: str) -> int:
    """C's strtol(text, NULL, 0), as an int of 32 bits."""
    match = _STRTOL.match(text)
    sign, prefix, digits = match.groups() if match else ("", "", "")
    base = 16 if prefix else 8 if digits.startswith("0") else 10
    allowed = {16: "[0-9a-fA-F]*", 8: "[0-7]*", 10: "[0-9]*"}[base]
    found = re.match(allowed, digits)
    value = int(found[0] or "0", base) if found else 0
    value = min(value, 2**63 - (0 if sign == "-" else 1)) * (-1 if sign == "-" else 1)
    return (value + 2**31) % 2**32 - 2**31


@dataclass
class _Node:
    kind: str
    name: str
    attributes: dict[str, str]
    line: int


def _shown(char: str) -> str:
    names = {"\n": "a line break", "\r": "a carriage return", "\t": "a TAB", "\0": "a NUL", " ": "a space"}
    return names.get(char, f"'{char}'" if " " < char < "\x7f" else f"byte 0x{ord(char):02x}")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._text = data.decode("latin-1")
        self._at = 0
        self._count = 0
        self.ignored: list[tuple[int, str, str]] = []
        # The first declaration, such as <!DOCTYPE>, that an element's closing tag ended, and the name of that.
        self._swallowed: tuple[_Node, str] | None = None

    def _line(self, back: int = 1) -> int:
        return self._text.count("\n", 0, max(self._at - back, 0)) + 1

    def _char(self) -> str:
        if self._at >= len(self._text):
            fix = "end the tag with > and the file with </system>"
            raise Refused(self._line(), "the file ends inside a tag (Unexpected EOF)", fix)
        self._at += 1
        return self._text[self._at - 1]

    def _token(self, named: bool) -> tuple[str, str | None, str]:
        """(name, value, the character behind); a value only where `named`."""
        start = self._at
        for place in range(MAX_TEXT + 2):
            char = self._char()
            name = self._text[start : self._at - 1].split("\0", 1)[0]
            if char == "=":
                if not named:
                    what = "a comment's first word" if name.startswith("!--") else "the name of an element"
                    fix = "put a space behind <!-- " if name.startswith("!--") else "put a space behind the name"
                    raise Refused(self._line(), f"= in {what} (Unexpected value with name {name[:40]})", fix)
                return (name, *self._value(name))
            if place > MAX_TEXT:
                break
            if char in " >/\n\r":
                return name, None, char
        reason = f"a name longer than {MAX_TEXT} characters ({self._text[start : start + 20]}...)"
        raise Refused(self._line(), reason, "shorten it; in a comment, put a space behind <!--")

    def _value(self, name: str) -> tuple[str, str]:
        quote = self._char()
        if quote not in "\"'":
            reason = f"the value of {name} has no quotes (Expected (double) quote)"
            raise Refused(self._line(), reason, f'write {name}="..."')
        start, line = self._at, self._line()
        for _ in range(MAX_TEXT + 1):
            if self._char() == quote:
                value = self._text[start : self._at - 1].split("\0", 1)[0]
                return value, self._char()
        raise Refused(line, f"the value of {name} is longer than {MAX_TEXT} characters", "shorten it or leave it out")

    def _comment(self, begin: str) -> None:
        line = self._line(1)
        end = ("..." + begin)[-3:]
        while end != "-->":
            if self._at >= len(self._text):
                raise Refused(line, "a comment without end (unterminated comment)", "close it with -->")
            end = end[1:] + self._char()

    def _node(self) -> _Node:
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \n\r":
                self._at += 1
            if self._at >= len(self._text):
                return _Node(_END, "", {}, self._line(0))
            self._begin(self._char())
            line = self._line()
            name, _, char = self._token(named=False)
            if not name.startswith("!--"):
                break
            self._comment(name[3:] + char)
        if not name and char == "/":
            name, _, char = self._token(named=False)
            if char != ">":
                reason = f"{_shown(char)} in the closing tag </{name}"
                raise Refused(self._line(), reason, f"write </{name}>")
            return _Node(_CLOSE, name, {}, line)
        return self._opened(name, char, line)

    def _begin(self, char: str) -> None:
        if char == "<":
            return
        reason = f"expecting '<', got {_shown(char)}"
        if char == "\t":
            fix = "indent with spaces: NCCL knows no TAB"
        elif self._at == 1 and self._text.startswith(("\xef\xbb\xbf", "\xff\xfe", "\xfe\xff")):
            reason, fix = "a byte order mark", "save the file as ASCII without BOM"
        else:
            fix = "remove text between tags; only spaces and line breaks may stand there"
        raise Refused(self._line(), reason, fix)

    def _opened(self, name: str, char: str, line: int) -> _Node:
        attributes: dict[str, str] = {}
        count = 0
        while char == " ":
            key, value, char = self._token(named=True)
            if count < MAX_ATTRIBUTES:
                attributes.setdefault(key, value or "")
            else:
                fix = f"leave some out; only the first {MAX_ATTRIBUTES} count, and NCCL needs room for its own"
                self.ignored.append((self._line(), f"attribute {key} of <{name}> is the {count + 1}th", fix))
            count += 1
        attributes.pop("", None)
        kind = _OPEN
        if char == "/":
            kind = _SINGLE
            _, _, char = self._token(named=False)
        if char != ">":
            at = self._line()
            if name.startswith("?"):
                reason, fix = f"an XML declaration (expected >, got '{char}')", "delete the line <?xml ...?>"
            elif char in "\n\r":
                reason = f"a line break inside the tag <{name} (expected >)"
                fix = "write all attributes of an element on one line"
            else:
                reason, fix = f"expected >, got {_shown(char)}", f"put one space between attributes of <{name}>"
            raise Refused(at, reason, fix)
        return _Node(kind, name, attributes, line)

    def load(self, head: Element, node: _Node) -> None:
        """xmlLoadSub: what is inside an element that NCCL keeps; the top of the file is one without a name."""
        top = not head.name
        while top or node.kind != _SINGLE:
            if self._count > MAX_ELEMENTS:
                raise Refused(self._line(), f"more than {MAX_ELEMENTS} elements", "leave out what is not needed")
            inner = self._node()
            if inner.kind == _END and top:
                return
            if inner.kind == _END:
                raise self._unterminated(node)
            if inner.kind == _CLOSE and not top:
                if inner.name != head.name and self._swallowed:
                    raise self._unterminated(node)
                if inner.name != head.name:
                    reason = f"</{inner.name}> closes <{head.name}> of line {head.line} (XML Mismatch)"
                    raise Refused(inner.line, reason, f"close <{head.name}> first")
                return
            if inner.name in CHILDREN.get(head.name, ()):
                self._keep(head, inner)
            else:
                self._pass_over(head, inner)

    def _keep(self, head: Element, inner: _Node) -> None:
        if head.name and len(head.children) == MAX_CHILDREN:
            reason = f"<{head.name}> has more than {MAX_CHILDREN} children, the limit up to NCCL 2.28.9"
            raise Refused(inner.line, reason, "leave out what is not needed")
        if inner.kind == _CLOSE:
            if self._swallowed:
                raise self._unterminated(inner)
            raise Refused(inner.line, f"</{inner.name}> closes nothing", "delete it")
        child = Element(inner.name, inner.attributes, [], inner.line)
        head.children.append(child)
        self._count += 1
        if inner.name == "system":
            _check_version(child)
        self.load(child, inner)

    def _pass_over(self, head: Element, node: _Node) -> None:
        """An element NCCL ignores. Inside it counts how deep tags are nested, and no name: so does NCCL."""
        reason = f"<{node.name}> inside <{head.name or 'the file'}> is ignored with all it holds"
        self.ignored.append((node.line, reason, _placed(node.name)))
        depth = int(node.kind != _SINGLE)
        while depth:
            inner = self._node()
            if inner.kind == _END:
                if node.kind == _CLOSE:
                    raise Refused(node.line, f"</{node.name}> closes nothing", "delete it")
                raise self._unterminated(node)
            depth += {_OPEN: 1, _CLOSE: -1}.get(inner.kind, 0)
            if not depth and inner.name != node.name and node.name.startswith("!"):
                self._swallowed = self._swallowed or (node, inner.name)

    def _unterminated(self, node: _Node) -> Refused:
        """The end of the file came first; blame what took the closing tag."""
        name = node.name
        if self._swallowed:
            node, closing = self._swallowed
            reason = f"<{node.name}> is not closed, so </{closing}> closes it (unterminated {name})"
            return Refused(node.line, reason, _unclosed(node))
        return Refused(node.line, f"<{name}> is not closed (unterminated {name})", _unclosed(node))


def _check_version(system: Element) -> None:
    version = system.attributes.get("version")
    if version is None:
        raise Refused(system.line, "<system> has no version", 'write <system version="1">')
    if as_int(version) != VERSION:
        raise Refused(system.line, f"version {version} of <system>; NCCL knows 1 only", 'write <system version="1">')


def _unclosed(node: _Node) -> str:
    if node.name.startswith("!"):
        return f"delete <{node.name}: NCCL knows elements and comments only"
    return "delete it" if node.kind == _CLOSE else f"add </{node.name}> or write <{node.name}/>"


def _placed(name: str) -> str:
    homes = [f"<{parent or 'the file'}>" for parent, inside in CHILDREN.items() if name in inside]
    return f"<{name}> belongs into {' or '.join(homes)}" if homes else "delete it: NCCL does not know it"
