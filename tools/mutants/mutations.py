"""Single small changes of a module's source, each of which a test should notice."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
_REMOVED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)
_LEFT = ("annotation", "returns", "decorator_list", "type_params")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One changed module: in the function `place`, at `line` and `column`, `change` says what became of what."""

    place: str
    line: int
    column: int
    change: str
    source: str


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every mutant of a module; annotations, decorators, options of classes and docstrings stay as they are."""
    tree = ast.parse(source)
    for place, node, put in list(_code(tree, "")):
        for new in _changes(node):
            put(ast.fix_missing_locations(ast.copy_location(deepcopy(new), node)))  # parts of it are parts of `node`
            changed = ast.unparse(tree)
            put(node)
            change = " ".join(f"{ast.unparse(node)} -> {ast.unparse(new)}".split())
            line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
            yield Mutant(place=place or "module", line=line, column=column, change=change, source=changed)


def _code(node: ast.AST, place: str) -> Iterator[tuple[str, ast.AST, Callable[[ast.AST], None]]]:
    """The nodes that are run, each with the function it is in and what puts another in its place."""
    for name, value in ast.iter_fields(node):
        if name in _LEFT or (isinstance(node, ast.ClassDef) and name == "keywords"):
            continue
        for at, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_for_the_reader(child):
                continue
            named = isinstance(child, ast.FunctionDef | ast.ClassDef)
            inside = f"{place}.{child.name}".lstrip(".") if named else place  # type: ignore[attr-defined]
            put = partial(value.__setitem__, at) if isinstance(value, list) else partial(setattr, node, name)
            yield inside, child, put
            yield from _code(child, inside)


def _is_for_the_reader(node: ast.AST) -> bool:
    """A docstring, or what only the type checker runs."""
    named = node.test if isinstance(node, ast.If) else node.targets[0] if isinstance(node, ast.Assign) else None
    if isinstance(named, ast.Name) and named.id == "TYPE_CHECKING":
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    if isinstance(node, _REMOVED):
        yield ast.Pass()
    elif isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            if other := _COMPARISONS.get(type(operator)):
                ops = [*node.ops[:at], other(), *node.ops[at + 1 :]]
                yield ast.Compare(left=node.left, ops=ops, comparators=node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(op=ast.Or() if isinstance(node.op, ast.And) else ast.And(), values=node.values)
        for left_out in range(len(node.values)):
            kept = [value for at, value in enumerate(node.values) if at != left_out]
            yield kept[0] if len(kept) == 1 else ast.BoolOp(op=node.op, values=kept)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and not isinstance(node.left, ast.JoinedStr):
        if other_operator := _ARITHMETIC.get(type(node.op)):
            yield ast.BinOp(left=node.left, op=other_operator(), right=node.right)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(value=node.value + 1)
        yield ast.Constant(value=node.value - 1)
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield ast.Return(value=ast.Constant(value=None))
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        changed = {name: value for name, value in ast.iter_fields(node)}
        yield type(node)(**{**changed, "test": ast.UnaryOp(op=ast.Not(), operand=node.test)})
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(target=node.target, iter=node.iter, ifs=[], is_async=node.is_async)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and (called := _CALLS.get(node.func.id)):
        keywords = [] if called == "list" else node.keywords
        yield ast.Call(func=ast.Name(id=called, ctx=ast.Load()), args=node.args, keywords=keywords)
