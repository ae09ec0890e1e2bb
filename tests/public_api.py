"""Lists what otoscope promises: every name, signature and field of the front door and of what the API reference documents.

`make api` writes the list to tests/api.txt, so that an interface changes only where somebody meant it.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
LISTED = Path(__file__).with_name("api.txt")
HEAD = "# What otoscope promises. `make api` writes this file; a change of it is a change for users: say so in CHANGELOG.md.\n"

_DIRECTIVE = re.compile(r"^::: (otoscope[\w.]*)((?:\n {4}.*)*)", re.M)
_MEMBERS = re.compile(r"members: *\[([\w, ]+)\]")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_KINDS = {classmethod: "classmethod ", staticmethod: "staticmethod "}


@dataclass(frozen=True)
class Documented:
    """One `:::` line of the API reference: a module, or one name of it, and the members that it names."""

    module: str
    names: tuple[str, ...] = ()


def documented() -> list[Documented]:
    """What the API reference shows, in the order of names; the front door is first."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md")))
    found = {"otoscope": Documented("otoscope")}
    for path, options in _DIRECTIVE.findall(pages):
        members = _MEMBERS.search(options)
        module, _, name = path.rpartition(".")
        if name[:1].isupper():
            found[path] = Documented(module, (name,))
        else:
            found[path] = Documented(path, tuple(re.split(r", *", members[1])) if members else ())
    return [found[path] for path in sorted(found)]


_ADDRESS = re.compile(" at 0x[0-9a-f]+")  # of functions: another one every time


def listing() -> str:
    """The whole list."""
    return HEAD + "".join(
        f"\n{line}" if line[0] != " " else line for part in documented() for line in _lines_of(part)
    )


def _lines_of(part: Documented) -> Iterator[str]:
    module = import_module(part.module)
    yield f"{part.module}\n"
    for name in sorted(part.names or _public_names(module)):
        yield from (f"  {line}\n" for line in _described(name, getattr(module, name), module))


def _public_names(module: ModuleType) -> list[str]:
    """`__all__`, else what the module defines itself under a public name."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if name != "__version__"]
    found = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        found += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in found if not name.startswith("_")]


def _described(name: str, thing: Any, module: ModuleType) -> Iterator[str]:
    home = getattr(thing, "__module__", module.__name__)
    if isinstance(thing, type | type(listing)) and home.startswith("otoscope") and home != module.__name__:
        yield f"{name} is {home}.{thing.__name__}"  # it is described where it is defined
        if module.__name__ != "otoscope" or any(home == part.module for part in documented()):
            return
    if inspect.isclass(thing):
        yield from _described_class(name, thing)
    elif callable(thing) and not str(thing).startswith("typing."):
        yield f"{name}{_signature(thing)}"
    elif str(thing).startswith("typing."):
        yield f"{name} = {_ADDRESS.sub('', str(thing))}"
    else:
        yield f"{name}: {type(thing).__name__}"


def _described_class(name: str, kind: type) -> Iterator[str]:
    bases = [
        base.__name__ for base in kind.__bases__ if base is not object and not base.__name__.startswith("_")
    ]
    signature = "" if issubclass(kind, enum.Enum) else _signature(kind)
    yield f"class {name}{signature}" + (f" of {', '.join(bases)}" if bases else "")
    own = [
        base
        for base in kind.__mro__
        if base is kind or (base.__name__.startswith("_") and "otoscope" in base.__module__)
    ]
    members = {key: value for base in reversed(own) for key, value in vars(base).items()}
    parameters = re.findall(r"\w+", signature)
    fields = {key for base in own for key in inspect.get_annotations(base)} | set(members)
    for key in sorted(fields):
        if not key.startswith(("_", "model_")) and (key not in parameters or callable(members.get(key))):
            annotation = next((a[key] for base in own if key in (a := inspect.get_annotations(base))), None)
            yield f"  {_member(key, members.get(key), annotation)}"


def _member(name: str, member: Any, annotation: str | None) -> str:
    if isinstance(member, property | cached_property):
        getter = member.fget if isinstance(member, property) else member.func
        returns = inspect.get_annotations(getter).get("return") if getter else None
        return f"{name}: {returns}"
    if isinstance(member, classmethod | staticmethod):
        return f"{_KINDS[type(member)]}{name}{_signature(member.__func__)}"
    if inspect.isfunction(member):
        return f"{name}{_signature(member)}"
    if isinstance(member, enum.Enum):
        return f"{name} = {member.value!r}"
    return f"{name}: {annotation or type(member).__name__}"


class _Bare(str):
    """An annotation as it stands in the source, without the quotes that a string has."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(thing: Any) -> str:
    try:
        found = inspect.signature(thing)
    except ValueError:
        return "(...)"
    bare = lambda one: _Bare(one) if isinstance(one, str) else one  # noqa: E731
    parameters = [one.replace(annotation=bare(one.annotation)) for one in found.parameters.values()]
    returns = found.empty if inspect.isclass(thing) else bare(found.return_annotation)
    return _ADDRESS.sub("", str(found.replace(parameters=parameters, return_annotation=returns)))


if __name__ == "__main__":
    LISTED.write_text(listing(), encoding="utf-8")
