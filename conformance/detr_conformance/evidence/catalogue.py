"""What tests and what mutants there are, read from the sources without importing them (and so without torch).

Tests are functions or classes decorated `@covers("MSDA-7", ...)`; mutants
`@mutant("name", rejects="MSDA-12", origin="...")`; twins `@twin("name", operation="...", origin="...")`. All
of these arguments are literal strings, or put together from string constants of the same file. A decorator that
stands for another, `name = partial(covers, ...)` in the same file, counts as that one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

Decorated = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class CatalogueError(Exception):
    """A decorator that cannot be read without running the code."""


@dataclass(frozen=True)
class CoveringTest:
    """A test of the suite and one clause that it covers; `operations` as its module names them, () if by a variable."""

    clause: str
    test: str
    file: str
    line: int
    operations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mutant:
    """A named implementation that tests the tests.

    Its kind is "mutant" (wrong, and `clause` must reject it) or "twin" (right, and `clause` is None).
    """

    kind: str
    name: str
    clause: str | None
    operation: str | None
    origin: str
    file: str
    line: int
    summary: str = ""  # the first paragraph of its docstring, in one line


@dataclass(frozen=True)
class _Decorator:
    """A decorator with arguments, and what is needed to read them."""

    name: str
    call: ast.Call
    definition: Decorated
    file: str
    constants: dict[str, str]
    operations: tuple[str, ...] = ()

    def positional(self) -> tuple[str, ...]:
        return tuple(self._string(argument) for argument in self.call.args)

    def keyword(self, name: str) -> str | None:
        return next((self._string(word.value) for word in self.call.keywords if word.arg == name), None)

    def _string(self, expression: ast.expr) -> str:
        text = _text(expression, self.constants)
        if text is None:
            raise CatalogueError(
                f"{self.file}:{expression.lineno}: {ast.unparse(expression)} must be a literal string or a "
                "constant of its file, as the catalogue is read without running the code"
            )
        return text


def covering_tests(directory: Traversable | None = None) -> list[CoveringTest]:
    """Every (clause, test) of the suite, by file and line.

    Raises:
        CatalogueError: a clause id is not a literal string, or a file does not parse.
    """
    directory = directory or files("detr_conformance") / "topics"
    return [
        CoveringTest(
            clause, decorator.definition.name, decorator.file, decorator.definition.lineno, decorator.operations
        )
        for decorator in _decorators(directory, prefix="test_")
        if decorator.name == "covers"
        for clause in decorator.positional()
    ]


def mutants(directory: Traversable | None = None) -> list[Mutant]:
    """Every mutant and twin, by file and line.

    Raises:
        CatalogueError: an argument is not a literal string, or a file does not parse.
    """
    directory = directory or files("detr_conformance") / "topics"
    return [
        Mutant(
            kind=decorator.name,
            name=decorator.positional()[0],
            clause=decorator.keyword("rejects"),
            operation=decorator.keyword("operation"),
            origin=decorator.keyword("origin") or "",
            file=decorator.file,
            line=decorator.definition.lineno,
            summary=(ast.get_docstring(decorator.definition) or "").partition("\n\n")[0].replace("\n", " "),
        )
        for decorator in _decorators(directory)
        if decorator.name in ("mutant", "twin")
    ]


def _decorators(directory: Traversable, prefix: str = "", path: str = "") -> Iterator[_Decorator]:
    """Every decorator with arguments in the Python files of a folder and of those in it, file by file, line by line."""
    if not directory.is_dir():
        return
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        place = f"{path}{entry.name}"
        if entry.is_dir():
            yield from _decorators(entry, prefix, f"{place}/")
        elif entry.name.startswith(prefix) and entry.name.endswith(".py"):
            yield from _decorators_of(entry, place)


def _decorators_of(entry: Traversable, place: str) -> Iterator[_Decorator]:
    try:
        tree = ast.parse(entry.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise CatalogueError(f"{place}:{error.lineno}: {error.msg}") from error
    constants, operations, partials = _constants(tree), _operations(tree), _partials(tree)
    definitions = [node for node in ast.walk(tree) if isinstance(node, Decorated)]
    for node in sorted(definitions, key=lambda node: node.lineno):
        for call in node.decorator_list:
            if isinstance(call, ast.Call):
                name = ast.unparse(call.func).rpartition(".")[2]  # `covers`, also of `suite_test.covers`
                yield _Decorator(partials.get(name, name), call, node, place, constants, operations)


def _partials(tree: ast.Module) -> dict[str, str]:
    """The module's own `name = partial(decorator, ...)`: what each stands for."""
    partials: dict[str, str] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="partial"), args=[decorator])):
                partials[name] = ast.unparse(decorator).rpartition(".")[2]
    return partials


def _operations(tree: ast.Module) -> tuple[str, ...]:
    """The module's OPERATION, or its OPERATIONS where they are written out."""
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="OPERATION")], value=ast.Constant(value=str(name))):
                return (name,)
            case ast.Assign(targets=[ast.Name(id="OPERATIONS")], value=ast.Tuple(elts=names)):
                return tuple(str(ast.literal_eval(name)) for name in names)
    return ()


def _constants(tree: ast.Module) -> dict[str, str]:
    """The module's own string constants."""
    constants: dict[str, str] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if (text := _text(value, constants)) is not None:
                    constants[name] = text
    return constants


def _text(expression: ast.expr, constants: dict[str, str]) -> str | None:
    """What a string expression of literals and constants says; None if it is anything else."""
    match expression:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return constants.get(name)
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return _text(value, constants)
        case ast.JoinedStr(values=parts):
            texts = [_text(part, constants) for part in parts]
            return None if None in texts else "".join(text or "" for text in texts)
    return None
