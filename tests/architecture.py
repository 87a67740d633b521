"""Checks a package's source files against an import table, by reading them: nothing is imported.

Every import counts, wherever it stands: at the top, inside a function, under ``if TYPE_CHECKING:``, and as a
literal name given to ``import_module`` or ``__import__``. What a type annotation needs is a dependency too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FRONT_DOOR = "the front door"
"""The owner of the root's own ``__init__.py``, and what ``import hftlab`` by itself imports."""


@dataclass(frozen=True)
class Home:
    """Where a library may be imported: whole packages, and modules, or folders of modules, of these names anywhere."""

    packages: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()

    def __str__(self) -> str:
        places = [f"{name}/" for name in sorted(self.packages)] + [f"{name}.py" for name in sorted(self.modules)]
        return " and ".join(places)


@dataclass(frozen=True)
class Rules:
    """What may import what. Packages go by their name below the root: ``bus`` for ``hftlab.bus.lanes``."""

    root: str
    table: Mapping[str, frozenset[str]]
    open_to_all: frozenset[str]
    homes: Mapping[str, Home]
    public_only: frozenset[str]
    drawers: frozenset[str]

    def may_import(self, owner: str, target: str) -> bool:
        """Return whether a file of ``owner`` may import the package ``target``."""
        if owner == FRONT_DOOR or target == owner:
            return True
        allowed = self.table.get(owner, frozenset())
        return target in allowed or (target in self.open_to_all and owner not in self.open_to_all)


@dataclass(frozen=True, order=True)
class Violation:
    """One line that breaks a rule."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


@dataclass(frozen=True)
class Imported:
    """One import statement's one name, made absolute: ``name`` is None for ``import module``."""

    line: int
    module: str
    name: str | None


def check(folder: Path, rules: Rules) -> list[Violation]:
    """Return every violation in the Python files of ``folder``, the package ``rules.root``, by place."""
    return sorted(
        violation
        for path in sorted(folder.rglob("*.py"))
        for violation in _check_file(path.relative_to(folder), path.read_text(encoding="utf-8"), folder, rules)
    )


def _check_file(path: Path, source: str, folder: Path, rules: Rules) -> Iterator[Violation]:
    shown = f"{rules.root}/{path.as_posix()}"
    tree = ast.parse(source, filename=shown)
    parts = path.with_suffix("").parts
    owner = FRONT_DOOR if parts == ("__init__",) else parts[0]

    if owner != FRONT_DOOR and owner not in rules.table:
        yield Violation(
            shown,
            1,
            "unknown",
            f"{owner} is not in the import table: give it a row, or move this to a package that has one",
        )
    if set(parts[-1].strip("_").split("_")) & rules.drawers:
        yield Violation(
            shown, 1, "names", f"{parts[-1]} names a drawer, not an idea: name the module after what it does"
        )
    if not (ast.get_docstring(tree) or "").strip():
        yield Violation(shown, 1, "docstrings", "no module docstring: say in one line what this module is for")

    for imported in imports(tree, (rules.root, *parts)):
        message = _outside(imported, owner, frozenset(parts[1:]), rules)
        if message:
            yield Violation(shown, imported.line, "homes", message)
        message = _inside(imported, owner, folder, rules)
        if message:
            yield Violation(shown, imported.line, "imports", message)


def imports(tree: ast.AST, parts: tuple[str, ...]) -> Iterator[Imported]:
    """Yield what a module imports; ``parts`` are the names on its path, the root package's first."""
    package = parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Imported(node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute("." * node.level + (node.module or ""), package)
            yield from (Imported(node.lineno, module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Imported(node.lineno, _absolute(name.value, package), None)


def _absolute(name: str, package: tuple[str, ...]) -> str:
    """Resolve a module's name that may begin with dots, within ``package``."""
    level = len(name) - len(name.lstrip("."))
    if level == 0:
        return name
    above = package[: len(package) - (level - 1)]
    return ".".join((*above, *filter(None, [name[level:]])))


def _outside(imported: Imported, owner: str, modules: frozenset[str], rules: Rules) -> str | None:
    library = imported.module.partition(".")[0]
    home = rules.homes.get(library)
    if home is None or owner in home.packages or modules & home.modules:
        return None
    return f"{library} may be imported in {home} only: move what needs it there, and call that"


def _inside(imported: Imported, owner: str, folder: Path, rules: Rules) -> str | None:
    target = _target(imported, rules)
    if target is None:
        return None
    if not rules.may_import(owner, target):
        allowed = ", ".join(sorted(rules.table.get(owner, frozenset()) | rules.open_to_all)) or "nothing of ours"
        return (
            f"{owner} may not import {target}, only {allowed}: move what both need further down, "
            f"or meet through a protocol in {rules.root}/events/ports.py and let lab introduce the two"
        )
    if owner in rules.public_only and target != owner and _is_private(imported, target, folder, rules):
        return (
            f"{owner} uses the public API of the others, and {imported.module}"
            f"{'.' + imported.name if imported.name else ''} is inside {target}: "
            f"import it from {rules.root}.{target}, and export it there if it is missing"
        )
    return None


def _target(imported: Imported, rules: Rules) -> str | None:
    """Return which of our packages an import reaches, None for a library from outside."""
    root, *below = imported.module.split(".")
    if root != rules.root:
        return None
    if below:
        return below[0]
    if imported.name in rules.table:
        return imported.name
    # The version is there as soon as anything of ours is imported, so asking for it ties nobody to anything.
    return None if imported.name == "__version__" else FRONT_DOOR


def _is_private(imported: Imported, target: str, folder: Path, rules: Rules) -> bool:
    if imported.module.count(".") > 1 or (imported.name or "").startswith("_"):
        return True
    return imported.module == f"{rules.root}.{target}" and (folder / target / f"{imported.name}.py").exists()
