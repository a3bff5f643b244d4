"""The image: its digest, its build, a build that was cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lab_support import Commands
from rackserve.lab import image
from rackserve.lab.spec import LabError, Result


class Builder(Commands):
    """Makes the tree that mmdebstrap would make."""

    def __call__(self, command: list[str]) -> Result:
        if command[0] == "mmdebstrap":
            (Path(command[-1]) / "srv/packages").mkdir(parents=True)
        return super().__call__(command)


@pytest.fixture
def recipe(tmp_path: Path) -> image.Recipe:
    files = tmp_path / "files"
    (files / "etc").mkdir(parents=True)
    (files / "etc/issue").write_text("lab\n")
    (files / "etc/issue").chmod(0o644)
    return image.Recipe("bookworm", ("systemd", "python3"), ("haproxy",), ("a.timer",), ("b.service",), files)


def test_the_digest_names_the_recipe(recipe: image.Recipe) -> None:
    first = recipe.digest
    assert len(first) == 12
    assert replace(recipe).digest == first
    others = {replace(recipe, suite="trixie").digest, replace(recipe, offered=()).digest}
    (recipe.files / "etc/issue").chmod(0o755)
    others.add(recipe.digest)
    (recipe.files / "etc/issue").write_text("other\n")
    others.add(recipe.digest)
    assert len(others | {first}) == 5


def test_enabling_another_unit_is_another_image(recipe: image.Recipe) -> None:
    assert replace(recipe, enabled_units=("c.service",)).digest != recipe.digest


def test_the_build_command_says_what_is_in_the_image(recipe: image.Recipe, tmp_path: Path) -> None:
    command = image.mmdebstrap(recipe, tmp_path / "tree")
    assert command[:2] == ["mmdebstrap", "--quiet"]
    assert "--include=systemd,python3" in command
    assert command[-2:] == ["bookworm", str(tmp_path / "tree")]
    hooks = "\n".join(word for word in command if word.startswith("--customize-hook="))
    assert "--download-only haproxy" in hooks
    assert "systemctl --quiet mask a.timer" in hooks
    assert "systemctl --quiet enable b.service" in hooks
    assert f"cp -r --no-preserve=ownership '{recipe.files}/.' \"$1/\"" in hooks


def test_an_image_is_built_once(recipe: image.Recipe, tmp_path: Path) -> None:
    images = tmp_path / "images"
    run = Builder({"mmdebstrap": "", "env -C": "Package: haproxy\n", "chroot": ""})
    path, built = image.ensure(recipe, images, run)
    assert (path, built) == (images / recipe.digest, True)
    assert (path / "srv/packages/Packages").read_text() == "Package: haproxy\n"
    assert run.calls[1:] == [
        f"env -C {images}/{recipe.digest}.part/srv/packages apt-ftparchive packages .",
        f"chroot {images}/{recipe.digest}.part apt-get --quiet update",
    ]
    assert image.ensure(recipe, images, Commands()) == (path, False)


def test_a_cut_off_build_is_thrown_away(recipe: image.Recipe, tmp_path: Path) -> None:
    part = tmp_path / "images" / f"{recipe.digest}.part"
    (part / "half").mkdir(parents=True)
    path, built = image.ensure(recipe, tmp_path / "images", Builder({"mmdebstrap": "", "env": "", "chroot": ""}))
    assert built
    assert not (path / "half").exists()
    assert not part.exists()


def test_a_failed_build_leaves_no_image(recipe: image.Recipe, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no such suite"):
        image.ensure(recipe, tmp_path / "images", Commands({"mmdebstrap": (1, "", "no such suite")}))
    assert not (tmp_path / "images" / recipe.digest).exists()
