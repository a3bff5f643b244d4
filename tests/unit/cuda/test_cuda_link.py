"""The link /usr/local/cuda: set where it is ours, left alone where somebody chose."""

from __future__ import annotations

from pathlib import Path

import pytest
from rackserve.cuda.link import Alternative, judge_link, read_alternative
from rackserve.cuda.readings import agrees

NEW, OLD, OWN = "/usr/local/cuda-13.0", "/usr/local/cuda-12.8", "/opt/cuda-12.4"
INSTALL = ["update-alternatives", "--install", "/usr/local/cuda", "cuda"]
OURS = [*INSTALL, NEW, "1000"]


def admin(mode: str, *choices: tuple[str, int]) -> str:
    return f"{mode}\n/usr/local/cuda\n\n" + "".join(f"{path}\n{priority}\n" for path, priority in choices) + "\n"


@pytest.mark.parametrize(
    ("text", "target", "taken", "judged"),
    [
        # nothing there, and what NVIDIA's package leaves on a bare host
        ("", "", False, (True, [OURS])),
        (admin("auto", (NEW, 130)), NEW, False, (True, [OURS])),
        (admin("auto", (NEW, 1000)), NEW, False, (True, [])),
        # an earlier release of ours gives way
        (admin("auto", (OLD, 1000), (NEW, 130)), OLD, False, (True, [OURS, [*INSTALL, OLD, "128"]])),
        (admin("auto", (NEW, 1000), (OLD, 1000)), OLD, False, (True, [[*INSTALL, OLD, "128"]])),
        # a choice of a person, and another toolkit that was there first
        (admin("manual", (OLD, 128), (NEW, 130)), OLD, False, (False, [])),
        (admin("manual", (OLD, 128), (NEW, 130)), OLD, True, (True, [OURS, ["update-alternatives", "--auto", "cuda"]])),
        (admin("auto", ("/usr/local/cuda-13.1", 131), (NEW, 130)), "/usr/local/cuda-13.1", False, (False, [])),
        (admin("auto", ("/usr/local/cuda-13.1", 131), (NEW, 130)), "/usr/local/cuda-13.1", True, (True, [OURS])),
    ],
)
def test_whose_link_it_is(
    text: str, target: str, taken: bool, judged: tuple[bool, list[list[str]]], tmp_path: Path
) -> None:
    (tmp_path / "var/lib/dpkg/alternatives").mkdir(parents=True)
    (tmp_path / "etc/alternatives").mkdir(parents=True)
    (tmp_path / "usr/local").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/alternatives/cuda").write_text(text)
    if target:
        (tmp_path / "usr/local/cuda").symlink_to("/etc/alternatives/cuda")
        (tmp_path / "etc/alternatives/cuda").symlink_to(target)
    assert judge_link(tmp_path, "13.0.2", ["alternative:cuda"] if taken else []) == (target, *judged)


@pytest.mark.parametrize(("leads", "ours"), [(NEW, True), (OWN, False)])
def test_a_link_that_somebody_made_by_hand_is_left_alone(leads: str, ours: bool, tmp_path: Path) -> None:
    (tmp_path / "usr/local").mkdir(parents=True)
    (tmp_path / "usr/local/cuda").symlink_to(leads)
    assert judge_link(tmp_path, "13.0.0", ["alternative:cuda"]) == (leads, ours, [])


def test_a_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "usr/local/cuda").mkdir(parents=True)
    assert judge_link(tmp_path, "13.0.0") == ("/usr/local/cuda", False, [])


def test_choices_with_slaves_are_read() -> None:
    text = "manual\n/usr/local/cuda\nnvcc.1\n/usr/share/man/nvcc.1\n\n/a\n130\n/a/nvcc.1\n/b\n-5\n/b/nvcc.1\n\n"
    assert read_alternative(text) == Alternative(False, {"/a": 130, "/b": -5})
    assert read_alternative("broken") is None and read_alternative("") is None


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("13.0.0", "13.0.0", True),
        ("13.0.20250731", "13.0.0", True),
        ("13.0", "13.0.2", True),
        ("9.12.0.46", "9.12.0", True),
        ("13.0.2", "13.0.0", False),
        ("13.1", "13.0.2", False),
        ("2", "2.27.7", False),
        ("", "2.27.7", False),
    ],
)
def test_a_version_that_a_file_says(found: str, wanted: str, same: bool) -> None:
    assert agrees(found, wanted) is same
