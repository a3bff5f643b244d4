"""Print the failed tests of JUnit reports, each with the first lines of its reason."""

import sys
from pathlib import Path
from xml.etree import ElementTree

for report in filter(Path.is_file, map(Path, sys.argv[1:])):
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (our own report)
        for reason in (*case.findall("failure"), *case.findall("error")):
            said = reason.get("message", "")[:400]
            sys.stdout.write(f"FAILED {case.get('classname')}::{case.get('name')}: {said}\n")
