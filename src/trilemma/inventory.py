"""What there is, read from its sources without importing them: what a command that only names things waits for is then
a tenth of a second, not the seconds that importing torch takes.

A part is found by the decorator that registers it: `@register(KIND, NAME)`, or one that is called as its kind is,
`@metric(NAME, DESCRIPTION, …)`. What it is is the first paragraph of its docstring, or that description.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from trilemma.registry import OWN, ROOMS, Kind, registry

PACKAGE = Path(__file__).parent

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Entry:
    """A part: its name, what it is, where it comes from (see `Registry.origin`), and the arguments that a recipe may
    give it, each with its default as it is written ("" for none)."""

    name: str
    description: str
    origin: str
    arguments: dict[str, str]

    @property
    def headline(self) -> str:
        """The first sentence of what it is."""
        return re.split(r"\.\s+(?=[^\W\d_a-z]|`)", self.description)[0].rstrip(".")


@cache
def packaged() -> dict[str, str]:
    """The packaged recipes' texts by name: a file each, or a variant put over another recipe, as its `recipes` say."""
    import yaml  # not for those who only ask for help

    texts = _texts("")
    for name, text in variants().items():
        head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        for recipe, own in yaml.safe_load(text).get("recipes", {}).items():
            base = own.pop("base")
            bases = [*(base if isinstance(base, list) else [base]), f"{VARIANTS}/{name}"]
            texts[recipe] = head + yaml.safe_dump({"base": bases, **own}, sort_keys=False, default_flow_style=None)
    return dict(sorted(texts.items()))


VARIANTS = "variants"


@cache
def variants() -> dict[str, str]:
    """The packaged variants' texts by name: parts of recipes, to be put over a whole one."""
    return _texts(VARIANTS)


def _texts(folder: str) -> dict[str, str]:
    return {file.stem: file.read_text(encoding="utf-8") for file in (PACKAGE / "recipes" / folder).glob("*.yaml")}


def needed(recipe: str) -> str | None:
    """What a packaged recipe waits for that the installation does not bring: its data's download, or their folder."""
    name = _data_of(recipe)
    if name in downloads():
        return f"downloads {name}, {downloads()[name]}"
    return f"needs images in {name}" if name.startswith("./") else None


@cache
def downloads() -> dict[str, str]:
    """The package's own sources of images that are downloaded, and how much, as they are `outlined`."""
    nodes = [node for room in ROOMS["data"] for file in (PACKAGE / room).glob("*.py") for node in _definitions(file)]
    found: dict[str, str] = {}
    for node in nodes:
        calls = [call for call in node.decorator_list if isinstance(call, ast.Call) and _called(call) == "outlined"]
        sizes = [_text(word.value) for call in calls for word in call.keywords if word.arg == "download"]
        found |= {name: size for name in _registered("data", node) for size in sizes if size}
    return found


@cache
def _data_of(recipe: str) -> str:
    """The name of a packaged recipe's data: its own, or that of the last of its bases that has one."""
    import yaml

    text = packaged().get(recipe) or variants().get(recipe.removeprefix(f"{VARIANTS}/"), "")
    values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    base = values.get("base", [])
    named = [_data_of(each) for each in (base if isinstance(base, list) else [base])]
    return str(values.get("data", {}).get("name") or next((name for name in reversed(named) if name), ""))


def headline(recipe: str) -> str:
    """The first line of a recipe's head comment: what it is."""
    return recipe.splitlines()[0].lstrip("# ").strip()


def summary(file: Path, function: str) -> str:
    """The first paragraph of the docstring of a function in a source file."""
    found = _defined(file, function)
    return _paragraph(found) if found else ""


def entries(kind: Kind) -> list[Entry]:
    """The parts of a kind: the package's own, then those of plugins and of installed packages, none of them imported
    that is not already."""
    files = [file for room in ROOMS[kind] for file in sorted((PACKAGE / room).glob("*.py"))]
    found = {entry.name: entry for file in files for entry in _own(kind, file)}
    known = registry(kind)
    for name, part in known.registered().items():
        if known.origin(name) != OWN:
            found[name] = _live(kind, name, part, known.origin(name))
    for name, point in known.points().items():
        if name not in found:
            found[name] = _unloaded(kind, name, point, known.origin(name))
    return list(found.values())


def _own(kind: Kind, file: Path) -> Iterator[Entry]:
    text = file.read_text(encoding="utf-8")
    if not re.search(rf'(register|preset)\("{kind}"|^@{kind}\(', text, re.MULTILINE):
        return
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, Definition):
            yield from (_entry(kind, name, node, OWN, tree) for name in _registered(kind, node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            match _called(call), [_text(word) for word in call.args]:
                case "preset", [of_kind, str(name), of] if of_kind == kind:
                    words = ", ".join(f"{word.arg} {ast.unparse(word.value)}" for word in call.keywords)
                    yield Entry(name, f"{of} with {words}", OWN, {})


def _entry(kind: Kind, name: str, node: Definition | None, origin: str, tree: ast.Module | None = None) -> Entry:
    """The part that a definition is, of a module of the package's own if that is given."""
    if node is None:
        return Entry(name, "", origin, {})
    return Entry(name, _registered(kind, node).get(name) or _paragraph(node), origin, _arguments(node, tree))


def _registered(kind: Kind, node: Definition) -> dict[str, str | None]:
    """The names under which a definition's decorators register it as this kind, each with what it is if they say so."""
    found: dict[str, str | None] = {}
    for call in node.decorator_list:
        if isinstance(call, ast.Call):
            match _called(call), [_text(word) for word in call.args]:
                case "register", [of_kind, str(name)] if of_kind == kind:
                    found[name] = None
                case called, [str(name), description] if called == kind:
                    found[name] = description
    return found


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _arguments(node: Definition, tree: ast.Module | None = None) -> dict[str, str]:
    """The keyword-only parameters of a function or of a class's constructor, or a dataclass's fields: its own, and of
    a class of the package's those of the classes that it is made from."""
    if isinstance(node, ast.FunctionDef):
        given = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        return {each.arg: ast.unparse(default) if default else "" for each, default in given if each.arg != "device"}
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return _arguments(inner)
    inherited = {key: text for base in _bases(node, tree) for key, text in _arguments(*base).items()}
    own = _fields(node) if any("dataclass" in ast.unparse(each) for each in node.decorator_list) else {}
    return inherited | own


def fields(file: Path, name: str) -> dict[str, str]:
    """The annotated fields of a class in a source file, each with its default as it is written ("" for none)."""
    found = _defined(file, name)
    return _fields(found) if isinstance(found, ast.ClassDef) else {}


def _fields(node: ast.ClassDef) -> dict[str, str]:
    return {
        ast.unparse(field.target): ast.unparse(field.value) if field.value else ""
        for field in node.body
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and "ClassVar" not in ast.unparse(field.annotation)
    }


def _bases(node: ast.ClassDef, tree: ast.Module | None) -> Iterator[tuple[ast.ClassDef, ast.Module]]:
    """The package's classes that a class of this module is made from, each with the module that defines it."""
    names = [ast.unparse(base) for base in node.bases]
    for other in tree.body if tree else ():
        if isinstance(other, ast.ClassDef) and other.name in names and tree:
            yield other, tree
        elif isinstance(other, ast.ImportFrom) and (other.module or "").startswith(f"{OWN}."):
            imported = [alias.name for alias in other.names if alias.name in names]
            file = PACKAGE.joinpath(*str(other.module).split(".")[1:]).with_suffix(".py")
            if imported and file.is_file():
                there = ast.parse(file.read_text(encoding="utf-8"))
                yield from ((n, there) for n in there.body if isinstance(n, ast.ClassDef) and n.name in imported)


def _live(kind: Kind, name: str, part: Any, origin: str) -> Entry:
    """A part that has been imported."""
    try:
        return _entry(kind, name, _defined(Path(inspect.getfile(part)), part.__name__), origin)
    except (TypeError, AttributeError, OSError):  # it is an object, or of no file
        return Entry(name, str(getattr(part, "description", "")), origin, {})


def _unloaded(kind: Kind, name: str, point: EntryPoint, origin: str) -> Entry:
    """A part of an installed package, as the file of its module has it."""
    package, *inside = point.module.split(".")
    spec = importlib.util.find_spec(package)  # of the top alone: to find a module inside, that would be imported
    folders = [Path(place).joinpath(*inside) for place in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in (folder.with_suffix(".py"), folder / "__init__.py")]
    files += [Path(spec.origin)] if spec and spec.origin and not inside else []
    found = next((node for file in files if file.is_file() and (node := _defined(file, point.attr))), None)
    return _entry(kind, name, found, origin)


def _defined(file: Path, name: str) -> Definition | None:
    """A file's function or class of this name."""
    return next((node for node in _definitions(file) if node.name == name), None)


def _definitions(file: Path) -> list[Definition]:
    """A file's functions and classes."""
    return [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, Definition)]


def _paragraph(node: Definition) -> str:
    return " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
