"""The texts of messages in Python sources: which calls make one, and what their arguments come to. For tools/messages.py.

Nothing is imported or run: assignments, branches and helpers that return text are followed in the syntax tree. What cannot be
known becomes a word in capitals (a value with a name) or `...`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from message_modules import Module
from message_modules import modules as modules

Env = dict[str, list[str]]
"""What a local name may hold, at one place of a function."""
TARGETS = {"Finding", "blocking", "Problem", "Refusal", "Obstacle", "Race", "NotNow"}
FOUND = "found"
"""Of an entry of the doctor's catalogue: `ENTRY.found(title, meaning, remedy)` makes the finding."""
FIELDS = {"cause", "remedy", "detail", "found", "expected", "operation", "path", "reason", "snapshots"}
FIELDS |= {"name", "otherwise", "setting"}  # of a Race
TOLD = {"cause", "remedy", "detail", "found"}
WORDS = {
    "id": "STORAGE",
    "storage_id": "STORAGE",
    "host": "NODE",
    "node": "NODE",
    "config": "STORAGE",
    "scp_host": "NODE",
    "shown": "OPTIONS",
}
_MANY = 8
_WORD = re.compile("[a-z]{3}|[a-z] ")
"""In what a function of another file makes: without, it only puts a value into a form."""
# Where a class that carries messages says what comes first in a call.
POSITIONS = {
    "Finding": ["kind", "cause", "remedy"],
    "blocking": ["kind", "cause", "remedy"],
    "Problem": ["code", "cause", "remedy"],
    "Refusal": ["cause", "remedy"],
    "Obstacle": ["cause", "remedy"],
    "NotNow": ["detail"],
    FOUND: ["cause", "meaning", "remedy"],
    "Race": ["code", "name", "first", "last", "first_is", "last_is", "otherwise", "setting", "of"],
}


@dataclass(frozen=True)
class Call:
    """target: the class or function that takes the message in the end. kind: the name of a `Kind`, where one is given; of a finding its id."""

    target: str
    kind: str | None
    texts: dict[str, str]


def calls(module: Module, errors: set[str]) -> Iterator[Call]:
    """Every call that makes a message, in the order of the file."""
    for function in module.functions.values():
        reader = _Reader(module, errors | TARGETS)
        reader.block(function.body, {})
        yield from reader.found


class _Reader:
    """Follows one function from its first statement to its last."""

    def __init__(self, module: Module, targets: set[str], depth: int = 0) -> None:
        self._module = module
        self._targets = targets
        self._depth = depth
        self.found: list[Call] = []
        self.returned: list[str] = []

    # --- statements ---

    def block(self, body: list[ast.stmt], env: Env) -> bool:
        """Whether the block ends the function; ``env`` is changed as the block changes it."""
        return any(self._statement(statement, env) for statement in body)

    def _statement(self, statement: ast.stmt, env: Env) -> bool:
        for expression in _expressions(statement):
            self._look_for_calls(expression, env)
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                env[name] = self.texts(value, env)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
                env.update(
                    {n.id: self.texts(v, env) for n, v in zip(names, values, strict=True) if isinstance(n, ast.Name)}
                )
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                before, more = _one(env.get(name, ["..."])), _one(self.texts(value, env))
                env[name] = ["..."] if before.isdecimal() else [f"{before}[{more}]"]
            case ast.Return(value=value) | ast.Expr(value=ast.Yield(value=value)) if value is not None:
                self.returned += self.texts(value, env)
                return isinstance(statement, ast.Return)
            case ast.Return() | ast.Raise() | ast.Continue():
                return True
            case ast.If():
                return self._branches([statement.body, statement.orelse], env)
            case ast.Match():
                return self._branches([*(case.body for case in statement.cases), []], env)
            case ast.Try():
                self._branches([statement.body, *(handler.body for handler in statement.handlers), []], env)
                self.block([*statement.orelse, *statement.finalbody], env)
            case ast.For() | ast.While() | ast.With():
                self._branches([statement.body, []], env)
        return False

    def _branches(self, bodies: list[list[ast.stmt]], env: Env) -> bool:
        after: list[Env] = []
        for body in bodies:
            inner = {name: list(texts) for name, texts in env.items()}
            if not self.block(body, inner):
                after.append(inner)
        merged: Env = {}
        for inner in after:
            for name, texts in inner.items():
                merged[name] = list(dict.fromkeys([*merged.get(name, []), *texts]))
        env.clear()
        env.update(merged)
        return not after

    # --- calls ---

    def _look_for_calls(self, expression: ast.expr, env: Env) -> None:
        for node in ast.walk(expression):
            if not isinstance(node, ast.Call):
                continue
            name = _called(node.func)
            target, kind, names = self._finding(node, env) or self._target(name, node)
            if target is None:
                continue
            given = dict(zip(names, node.args, strict=False)) | {
                k.arg: k.value for k in node.keywords if k.arg is not None
            }
            texts = {
                name: _one(self.texts(value, env))
                for name, value in given.items()
                if name in FIELDS and not isinstance(value, ast.Starred)
            }
            if name in self._module.functions and target != FOUND:
                texts = self._rest_of(name) | texts
            if target == "Race":
                texts.setdefault("setting", "the times that 'pvedrbdstor fencing timeline STORAGE' names")
            if texts.keys() & (TOLD | {"otherwise"}):
                self.found.append(Call(target, kind, texts))

    def _finding(self, node: ast.Call, env: Env) -> tuple[str | None, str | None, list[str]] | None:
        """Of a call of an entry's `found`; None of any other."""
        match node.func:
            case ast.Attribute(value=ast.Name() as entry, attr="found") if len(node.args) >= 3:
                return FOUND, _one(self.texts(entry, env)), POSITIONS[FOUND]
        return None

    def _target(self, name: str, node: ast.Call) -> tuple[str | None, str | None, list[str]]:
        """Who takes the message in the end: the class itself, or the one that a helper of this file hands it to."""
        helper = self._module.functions.get(name)
        if helper is not None:
            names = [argument.arg for argument in helper.args.args if argument.arg != "self"]
            if not TOLD & set(names):
                return None, None, []
            inner = [call for call in ast.walk(helper) if isinstance(call, ast.Call)]
            for call in inner:
                if _called(call.func) in self._targets and _called(call.func) not in self._module.functions:
                    return _called(call.func), _kind(call), names
            return None, None, []
        if name not in self._targets:
            return None, None, []
        return name, _kind(node), POSITIONS.get(name, [])

    def _rest_of(self, helper: str) -> dict[str, str]:
        """What a helper says besides what it is given."""
        if self._depth:
            return {}
        reader = _Reader(self._module, self._targets, self._depth + 1)
        reader.block(self._module.functions[helper].body, {})
        return reader.found[-1].texts if reader.found else {}

    # --- texts ---

    def texts(self, node: ast.expr, env: Env) -> list[str]:
        """What an expression may come to."""
        match node:
            case ast.Constant(value=str() as text):
                return [text]
            case ast.Constant(value=value):
                return ["" if value is None else str(value)]
            case ast.JoinedStr(values=values):
                text = "".join(_one(self.texts(value, env)) for value in values)
                return [text if text.strip(". ") or not text else "..."]
            case ast.FormattedValue(value=value):
                return self.texts(value, env)
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower)):
                return self.texts(value, env) if lower is not None else [""]  # x[:1].lower() + x[1:]
            case ast.BinOp(left=ast.Constant(value=int())) | ast.BinOp(right=ast.Constant(value=int())):
                return ["..."]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [_one(self.texts(left, env)) + _one(self.texts(right, env))]
            case ast.IfExp(test=ast.Name(id=name), orelse=orelse) if env.get(name) == [""]:
                return self.texts(orelse, env)
            case ast.IfExp(body=body, orelse=orelse):
                return list(dict.fromkeys([*self.texts(body, env), *self.texts(orelse, env)]))
            case ast.Name(id=name):
                return env[name] if name in env else self._global(name)
            case ast.Attribute(value=ast.Name(id=file), attr=name) if (
                text := self._constant_of(file, name)
            ) is not None:
                return [text]
            case ast.Attribute(attr=name):
                return [WORDS.get(name, name.strip("_").upper())]
            case ast.Call():
                return self._of_call(node, env)
        return ["..."]

    def _constant_of(self, file: str, name: str) -> str | None:
        """A text that another file has by this name."""
        module = self._module.files.get(file)
        match module.constants.get(name) if module is not None else None:
            case ast.Constant(value=str() as text):
                return text
            case ast.JoinedStr() as joined if module is not None:
                return _one(_Reader(module, set()).texts(joined, {}))
        return None

    def _global(self, name: str) -> list[str]:
        if name in self._module.constants:
            return self.texts(self._module.constants[name], {})
        where, there = self._module.imported.get(name, (self._module, name))
        match where.constants.get(there):
            case ast.Constant(value=int() | float() as number):
                return [f"{number:g}"]
        return [self._module.elsewhere.get(name) or WORDS.get(name) or name.strip("_").upper()]

    def _of_call(self, node: ast.Call, env: Env) -> list[str]:
        name = _called(node.func)
        helper = self._module.function(name)
        if name == "Entry" and node.args:  # of the catalogue: its id
            return self.texts(node.args[0], env)
        if isinstance(node.func, ast.Attribute) and name in ("strip", "rstrip", "lower", "capitalize"):
            return self.texts(node.func.value, env)
        if isinstance(node.func, ast.Attribute) and name == "get":
            of = node.func.value
            table = self._module.constants.get(of.id) if isinstance(of, ast.Name) else of
            if isinstance(table, ast.Dict):
                return [text for value in (*table.values, *node.args[1:]) for text in self.texts(value, env)]
        if isinstance(node.func, ast.Attribute) and name == "format":
            text = _one(self.texts(node.func.value, env))
            for argument in node.args:
                text = text.replace("{}", _one(self.texts(argument, env)), 1)
            for keyword in node.keywords:
                text = text.replace(f"{{{keyword.arg}}}", _one(self.texts(keyword.value, env)))
            return [text]
        if helper is not None and self._depth < 3:
            where, function = helper
            reader = _Reader(where, set(), self._depth + 1)
            names = [argument.arg for argument in function.args.args if argument.arg != "self"]
            defaults = function.args.defaults
            usual = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
            given = dict(zip(names, node.args, strict=False)) | {
                k.arg: k.value for k in node.keywords if k.arg is not None
            }
            known = {name: reader.texts(value, {}) for name, value in usual.items()}
            reader.block(function.body, known | {name: self.texts(value, env) for name, value in given.items()})
            told = list(dict.fromkeys(reader.returned))
            if told and "..." not in told and (where is self._module or all(map(_WORD.search, told))):
                return told
        return ["..."]


def _one(texts: list[str]) -> str:
    """Alternatives as one text: `[a]` where the other is nothing, `(a | b)` where there are few."""
    some = list(dict.fromkeys(text for text in texts if text))
    if not some:
        return ""
    if len(some) > _MANY:
        return "..."
    text = some[0] if len(some) == 1 else f"({' | '.join(some)})"
    return f"[{text}]" if "" in texts and len(some) == 1 else text


def _called(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _kind(call: ast.Call) -> str | None:
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        match argument:
            case ast.Attribute(value=ast.Name(id="Kind"), attr=name):
                return name
    return None


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """Those of the statement itself, without the blocks below it."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.withitem):
            yield child.context_expr
