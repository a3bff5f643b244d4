"""A log as `nvidia-smi -q -x` and as `nvidia-smi -q` print it."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from .labels import LABELS
from .log import Node

XML_HEAD = (
    '<?xml version="1.0" ?>',
    '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">',
    "<!-- simulated: no real GPU is behind these values -->",
)
LABEL_WIDTH = 51
# Elements that only the XML has.
ONLY_XML = {"mig_devices", "supported_clocks", "supported_gpu_target_temp", "accounted_processes", "power_state"}
# Reasons that are printed below the one before them.
BELOW_SLOWDOWN = {"clocks_event_reason_hw_thermal_slowdown", "clocks_event_reason_hw_power_brake_slowdown"}
RETIRED = (
    ("Single Bit ECC", "multiple_single_bit_retirement"),
    ("Double Bit ECC", "double_bit_retirement"),
    ("Pending Page Blacklist", "pending_blacklist"),
)
PREFIX = "0x"
HEXADECIMAL = {
    "pci_bus",
    "pci_device",
    "pci_domain",
    "pci_base_class",
    "pci_sub_class",
    "pci_device_id",
    "pci_sub_system_id",
}


def xml(root: Node) -> Iterator[str]:
    yield from XML_HEAD
    yield f"<{root.tag}>"
    for child in root.children:
        yield from element(child, 1)
        if child.tag == "gpu":
            yield ""
    yield f"</{root.tag}>"


def element(node: Node, depth: int) -> Iterator[str]:
    indent = "\t" * depth
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in node.attributes.items())
    if node.tag == "mig_devices":
        yield from (f"{indent}<{node.tag}>", f"{indent}\t{node.text}", f"{indent}</{node.tag}>")
    elif node.text is not None:
        yield f"{indent}<{node.tag}>{escape(node.text)}</{node.tag}>"
    else:
        yield f"{indent}<{node.tag}{attributes}>"
        for child in node.children:
            yield from element(child, depth + 1)
        yield f"{indent}</{node.tag}>"


def plain(root: Node) -> Iterator[str]:
    yield from ("", "==============NVSMI LOG (simulated)==============", "")
    for child in root.children:
        if child.tag == "gpu":
            yield f"GPU {child.attributes['id']}"
            for part in child.children:
                yield from lines(part, 1)
            yield ""
        else:
            yield line(label(child.tag), child.text or "", 0)
            if child.tag == "cuda_version":
                yield ""


def label(tag: str) -> str:
    return LABELS.get(tag) or " ".join(word.capitalize() for word in tag.split("_"))


def line(name: str, value: str, depth: int) -> str:
    return f"{'    ' * depth}{name:<{LABEL_WIDTH + 4 - 4 * depth}}: {value}"


def lines(node: Node, depth: int) -> Iterator[str]:
    if node.tag in ONLY_XML:
        return
    if node.tag == "retired_pages":
        yield from retired(node, depth)
    elif node.tag == "processes":
        yield from processes(node, depth)
    elif node.text is not None:
        value = PREFIX + node.text if node.tag in HEXADECIMAL and node.text != "N/A" else node.text
        yield line(label(node.tag), value, depth + (node.tag in BELOW_SLOWDOWN))
    else:
        yield "    " * depth + label(node.tag)
        for child in node.children:
            yield from lines(child, depth + 1)


def retired(node: Node, depth: int) -> Iterator[str]:
    parts = {child.tag: child for child in node.children}
    yield "    " * depth + label(node.tag)
    for name, tag in RETIRED:
        part = parts[tag]
        yield line(name, (part.children[0].text if part.children else part.text) or "", depth + 1)


def processes(node: Node, depth: int) -> Iterator[str]:
    if not node.children:
        yield line("Processes", "None", depth)
        return
    yield "    " * depth + "Processes"
    for found in node.children:
        values = {child.tag: child.text or "" for child in found.children}
        yield line("GPU instance ID", values["gpu_instance_id"], depth + 1)
        yield line("Compute instance ID", values["compute_instance_id"], depth + 1)
        yield line("Process ID", values["pid"], depth + 1)
        yield line("Type", values["type"], depth + 2)
        yield line("Name", values["process_name"], depth + 2)
        yield line("Used GPU Memory", values["used_memory"], depth + 2)
