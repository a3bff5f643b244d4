"""A topology as text NCCL can read, and in a form that two of them are compared in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .parser import MAX_ATTRIBUTES, MAX_ELEMENTS, MAX_TEXT, VERSION, Element, parse

# What tells one run from another, not one host from another.
PASSING = ("host_hash", "rank")


class TopologyError(Exception):
    """A topology that cannot be written or read: one line, what and how to mend it."""


def system(cpus: list[Element]) -> Element:
    """The root element."""
    return Element("system", {"version": str(VERSION)}, cpus)


def walk(element: Element) -> Iterator[Element]:
    """The element and all below it."""
    yield element
    for child in element.children:
        yield from walk(child)


def write(root: Element) -> str:
    """The text: spaces and line breaks, no declaration, ASCII. Raises TopologyError where NCCL could not read it."""
    elements = list(walk(root))
    if len(elements) > MAX_ELEMENTS:
        raise TopologyError(f"{len(elements)} elements, NCCL reads {MAX_ELEMENTS}; the host has too many devices")
    for element in elements:
        if len(element.attributes) > MAX_ATTRIBUTES:
            raise TopologyError(f"<{element.name}> has more than {MAX_ATTRIBUTES} attributes")
        for key, value in element.attributes.items():
            if len(value) > MAX_TEXT:
                raise TopologyError(f"{key} of <{element.name}> is longer than {MAX_TEXT} characters")
            if '"' in value or not value.isascii() or not value.isprintable():
                raise TopologyError(f"{key} of <{element.name}> holds what NCCL cannot read: {value!r}")
    return "".join(_lines(root, 0))


def _lines(element: Element, depth: int) -> Iterator[str]:
    begin = "  " * depth + "<" + " ".join([element.name, *(f'{k}="{v}"' for k, v in element.attributes.items())])
    if not element.children:
        yield begin + "/>\n"
        return
    yield begin + ">\n"
    for child in element.children:
        yield from _lines(child, depth + 1)
    yield "  " * depth + f"</{element.name}>\n"


def read(text: str) -> Element:
    """The first <system> of a text. Raises parser.Refused as NCCL would, TopologyError where there is none."""
    tops = parse(text.encode("utf-8", "surrogateescape")).tops
    if not tops:
        raise TopologyError("no <system> in it")
    return tops[0]


def canonical(element: Element, without: tuple[str, ...] = PASSING) -> Any:
    """(name, attributes, children) without order and without the attributes `without`."""
    attributes = tuple(sorted((k, v) for k, v in element.attributes.items() if k not in without))
    return element.name, attributes, tuple(sorted(canonical(child, without) for child in element.children))


def differences(one: Element, other: Element, without: tuple[str, ...] = PASSING) -> list[str]:
    """What only one of two topologies has, as lines of `path: attributes`, `-` for the first and `+` for the other."""
    ours, theirs = (sorted(_paths(element, (), without)) for element in (one, other))
    lines = [f"- {line}" for line in _missing(ours, theirs)] + [f"+ {line}" for line in _missing(theirs, ours)]
    return sorted(lines, key=lambda line: line[2:])


def _missing(from_: list[str], there: list[str]) -> list[str]:
    left = list(there)
    out = []
    for line in from_:
        if line in left:
            left.remove(line)
        else:
            out.append(line)
    return out


def identity(element: Element) -> str:
    """The name of an element among its siblings."""
    for key in ("busid", "numaid", "name", "target"):
        if key in element.attributes:
            return f"{element.name}[{element.attributes[key]}]"
    return element.name


def _paths(element: Element, above: tuple[str, ...], without: tuple[str, ...]) -> Iterator[str]:
    path = (*above, identity(element))
    shown = " ".join(f"{k}={v}" for k, v in sorted(element.attributes.items()) if k not in without)
    yield f"{'/'.join(path)}: {shown}"
    for child in element.children:
        yield from _paths(child, path, without)
