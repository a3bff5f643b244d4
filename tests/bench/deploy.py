"""The same items in pyinfra: its own operations, one a resource; a kernel setting is read as the other ways read it."""

import json
import os
from pathlib import Path

from pyinfra import host
from pyinfra.facts.files import FileContents
from pyinfra.operations import apt, files, server, systemd

listed = Path(os.environ["BENCH_ITEMS"])
items = json.loads(listed.read_text())[host.name]
for item in items:
    kind = item["kind"]
    if kind == "file":
        files.put(src=str(listed.parent / host.name / item["path"].lstrip("/")), dest=item["path"], mode=item["mode"])
    elif kind == "directory":
        files.directory(path=item["path"], mode=item["mode"])
    elif kind == "link":
        files.link(path=item["path"], target=item["target"])
    elif kind == "absent":
        files.file(path=item["path"], present=False)
    elif kind == "knob":
        host.get_fact(FileContents, path=item["path"])
    elif kind == "user":
        server.user(user=item["name"], uid=item["uid"])
    elif kind == "unit":
        systemd.service(service=item["name"], enabled=item["enabled"], running=item.get("active"))
apt.packages(packages=[item["name"] for item in items if item["kind"] == "package"])
