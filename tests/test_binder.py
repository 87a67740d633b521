"""What Binder would build: the Dockerfile as repo2docker renders it, without Docker."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("binder", "hftlab", "notebooks", "environment.yml", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory: pytest.TempPathFactory) -> str:
    if importlib.util.find_spec("repo2docker") is None:
        pytest.skip("jupyter-repo2docker is not installed (pip install -e '.[test]' brings it)")
    copy = tmp_path_factory.mktemp("binder") / "repository"
    copy.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    done = subprocess.run(
        [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(copy)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout + done.stderr


def test_the_environment_is_the_one_of_the_root(dockerfile: str) -> None:
    # With a binder folder the root's environment.yml is ignored without a word, unless the folder links to it.
    assert re.search(r"COPY .*src/binder/environment\.yml", dockerfile)
    assert '--file "binder/environment.yml"' in dockerfile
    assert (ROOT / "binder" / "environment.yml").resolve() == (ROOT / "environment.yml").resolve()


def test_the_package_is_installed_and_its_start_script_runs_last(dockerfile: str) -> None:
    assert "RUN ./binder/postBuild" in dockerfile
    assert 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in dockerfile
    build = (ROOT / "binder" / "postBuild").read_text()
    assert re.search(r"pip install .*--no-deps", build)
    assert "hftlab compile" in build


def test_the_python_is_the_one_that_the_environment_asks_for(dockerfile: str) -> None:
    asked = re.search(r"python\s*=\s*(3\.\d+)", (ROOT / "environment.yml").read_text())
    assert asked
    # repo2docker writes the dots and dashes of the file that it chose as -2e and -2d.
    assert f"environment-2epy-2d{asked[1].replace('.', '-2e')}-2dlinux" in dockerfile


def test_the_badge_opens_the_first_notebook() -> None:
    badge = re.search(
        r"\(https://mybinder\.org/v2/gh/[\w.-]+/[\w.-]+/HEAD\?urlpath=([^)\s]+)\)", (ROOT / "README.md").read_text()
    )
    assert badge
    assert badge[1] == "lab/tree/notebooks/01_quickstart.ipynb"
