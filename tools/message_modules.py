"""The Python sources that messages are read from, each with what it has and what it takes from others. For tools/message_texts.py."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

_PACKAGE = "pvedrbdstor"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """name: the file's path below the package. functions: all of them, methods too, by name. elsewhere: texts that any file names.
    imported: what it takes from other files, by the name that it has here: where from, and its name there. files: other files that it names."""

    name: str
    tree: ast.Module
    functions: dict[str, Function] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    imported: dict[str, tuple[Module, str]] = field(default_factory=dict)
    files: dict[str, Module] = field(default_factory=dict)

    def function(self, name: str) -> tuple[Module, Function] | None:
        """A function that this file has or imports by name, with the file that has it."""
        if name in self.functions:
            return self, self.functions[name]
        module, there = self.imported.get(name, (self, name))
        return (module, module.functions[there]) if there in module.functions else None


def modules(package: Path) -> list[Module]:
    found = []
    named: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        module = Module(str(path.relative_to(package)), ast.parse(path.read_text()))
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                module.functions[node.name] = node
        for statement in module.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                module.constants[statement.targets[0].id] = statement.value
                match statement.value:
                    case ast.Constant(value=str() as text):
                        named[statement.targets[0].id] = text
        module.elsewhere = named
        found.append(module)
    _import(found)
    return found


def _import(found: list[Module]) -> None:
    """Tell each file where that is what it imports from another one of the package, and which files it imports whole."""
    by_name = {f"{_PACKAGE}.{module.name.removesuffix('.py').replace('/', '.')}": module for module in found}
    for module in found:
        for statement in ast.walk(module.tree):
            for alias in statement.names if isinstance(statement, ast.ImportFrom) else ():
                assert isinstance(statement, ast.ImportFrom)
                here = alias.asname or alias.name
                if statement.module in by_name:
                    module.imported[here] = (by_name[statement.module], alias.name)
                elif (whole := f"{statement.module}.{alias.name}") in by_name:
                    module.files[here] = by_name[whole]
