"""Finds parts of a message that can never be sent, before it is saved: coupons without a code, expressions that fail.

The lists that a mail needs are computed with `has_coupon` true for each of them: the largest consistent set, as
coupons/templates/needs.py defines it. If codes are short, `has_coupon` may become false. Then a mail may print fewer
coupons, but never another one, for which no code was reserved. `sendability_problems` accepts only messages of which
this is certain.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import minijinja
from jinja2 import nodes

from coupons.templates.analysis import list_key, problem_line
from coupons.templates.engine import new_engine

_COMPARISONS = {
    "eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in",
}  # fmt: skip


def sendability_problems(parts: Mapping[str, str], *, most_characters: int) -> list[str]:
    """One line for each reason why a message, or a coupon in it, can never be sent. `parts` must have no problems."""
    jinja = jinja2.Environment(autoescape=True)
    checks = [_PartCheck(part, jinja.parse(source)) for part, source in parts.items()]
    printed = _all_of([check.printed for check in checks])
    problems = [problem for check in checks for problem in check.problems]
    problems += [each.problem() for each in printed.lost.values()]
    if not problems:
        problems += [line for check in checks for line in check.useless_conditions(printed.possible)]
    if sum(check.least_characters for check in checks) > most_characters:
        problems.append(f"every mail is longer than {most_characters} characters")
    return problems


@dataclass(frozen=True, slots=True)
class _Lost:
    """A call of `coupon` that may be reached only because `has_coupon` is false for one of the lists `without`."""

    part: str
    line: int
    name: str
    without: tuple[str, ...]

    def problem(self) -> str:
        asked = self.name if self.name in self.without else self.without[0]
        case = f'if has_coupon("{asked}") is false, this prints coupon("{self.name}"), but no code is reserved for it'
        remedy = (
            "print it in both cases"
            if asked == self.name
            else f'print coupon("{asked}") instead, which then is the alternative text of list {asked}'
        )
        return problem_line(self.part, self.line, f"{case}: {remedy}")


@dataclass(frozen=True, slots=True)
class _Printed:
    """What a piece of a message prints: lists that are certain, the lines of those that are possible, lost calls."""

    certain: frozenset[str] = frozenset()
    possible: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, _Lost] = field(default_factory=dict)


NOTHING = _Printed()


def _all_of(pieces: Iterable[_Printed]) -> _Printed:
    """Pieces after each other. A lost call does no harm if the list is certainly printed next to it."""
    pieces = list(pieces)
    certain = frozenset[str]().union(*(each.certain for each in pieces))
    lost = {name: call for each in pieces for name, call in each.lost.items() if name not in certain}
    return _Printed(certain, _possible(pieces), lost)


def _possible(pieces: Sequence[_Printed]) -> dict[str, int]:
    return {name: line for each in reversed(pieces) for name, line in each.possible.items()}


class _NotConstantError(Exception):
    """The value of an expression depends on the recipient."""


class _PartCheck:
    """The check of one part."""

    def __init__(self, part: str, template: nodes.Template) -> None:
        self.problems: list[str] = []
        self._part = part
        self._engine = new_engine()
        self._asked: dict[str, int] = {}  # the lists of has_coupon, with the first line
        self.printed = self._statements(template.body)
        self.least_characters = _least_characters(template.body)

    def useless_conditions(self, printed: Iterable[str]) -> Iterator[str]:
        for name in sorted(self._asked.keys() - set(printed)):
            yield self._line(
                self._asked[name], f'has_coupon("{name}") is always false, because no mail prints coupon("{name}")'
            )

    def _line(self, line: int, reason: str) -> str:
        return problem_line(self._part, line, reason)

    # --- what is printed ----------------------------------------------------------------------------------------------

    def _statements(self, body: Iterable[nodes.Node]) -> _Printed:
        pieces = []
        for node in body:
            match node:
                case nodes.Output():
                    pieces += [self._expression(each) for each in node.nodes]
                case nodes.If():
                    pieces.append(self._if(node))
        return _all_of(pieces)

    def _if(self, node: nodes.If) -> _Printed:
        branches = [(each.test, self._statements(each.body)) for each in (node, *node.elif_)]
        otherwise = self._statements(node.else_)
        for test, then in reversed(branches):
            otherwise = self._branch(test, then, otherwise)
        return otherwise

    def _expression(self, node: nodes.Node) -> _Printed:
        """Check an expression and return the coupons that it prints."""
        match node:
            case nodes.CondExpr():
                then = self._expression(node.expr1)
                otherwise = self._expression(node.expr2) if node.expr2 is not None else NOTHING
                return self._branch(node.test, then, otherwise)
            case nodes.Call(node=nodes.Name(name="coupon")):
                name = _list_of(node)
                return _Printed(frozenset({name}), {name: node.lineno})
            case nodes.Call():
                self._asked.setdefault(_list_of(node), node.lineno)
                return NOTHING
        printed = _all_of([self._expression(child) for child in node.iter_child_nodes()])
        self._check_constant(node)
        return printed

    def _branch(self, test: nodes.Node, then: _Printed, otherwise: _Printed) -> _Printed:
        self._expression(test)
        try:
            always = bool(self._constant(test))
        except (_NotConstantError, minijinja.TemplateError):
            return self._either(test, then, otherwise)
        taken, dropped = (then, otherwise) if always else (otherwise, then)
        for name, line in dropped.possible.items():
            self.problems.append(self._line(line, f'coupon("{name}") is never printed: its condition is constant'))
        return taken

    def _either(self, test: nodes.Node, then: _Printed, otherwise: _Printed) -> _Printed:
        """One of two branches. Where `has_coupon` can choose a branch, the lists of the other one can be lost."""
        lists, rising, falling = _direction(test)
        lost = {**then.lost, **otherwise.lost}
        for is_possible, less, more in ((rising, otherwise, then), (falling, then, otherwise)):
            if is_possible:
                for name in less.possible.keys() - more.certain:
                    lost[name] = _Lost(self._part, less.possible[name], name, lists)
        return _Printed(then.certain & otherwise.certain, _possible([then, otherwise]), lost)

    # --- constants ----------------------------------------------------------------------------------------------------

    def _check_constant(self, node: nodes.Node) -> None:
        """Report an expression that fails for each recipient. Its parts do not fail, or they were reported."""
        try:
            self._constant(node)
        except _NotConstantError:
            pass
        except minijinja.TemplateError as error:
            if not any(self._fails(child) for child in node.iter_child_nodes()):
                reason = error.detail or error.kind
                self.problems.append(self._line(node.lineno, f"this always fails: {reason}"))

    def _fails(self, node: nodes.Node) -> bool:
        try:
            self._constant(node)
        except _NotConstantError:
            return False
        except minijinja.TemplateError:
            return True
        return False

    def _constant(self, node: nodes.Node) -> Any:  # noqa: C901, PLR0911 - one case per kind of node
        """The engine's value of an expression that is the same for all recipients.

        Raises _NotConstantError, or minijinja.TemplateError if the engine cannot compute it.
        """
        match node:
            case nodes.Const():
                return node.value
            case nodes.Operand():
                return self._constant(node.expr)
            case nodes.List() | nodes.Tuple():
                return [self._constant(each) for each in node.items]
            case nodes.Filter(node=nodes.Expr() as inner):
                values = [self._constant(inner), *map(self._constant, node.args)]
                arguments = ", ".join(f"v{number}" for number in range(1, len(values)))
                return self._compute(f"v0|{node.name}({arguments})", values)
            case nodes.Neg():
                return self._compute("-v0", [self._constant(node.node)])
            case nodes.Not():
                return self._compute("not v0", [self._constant(node.node)])
            case nodes.Concat():
                values = [self._constant(each) for each in node.nodes]
                return self._compute(" ~ ".join(f"v{number}" for number in range(len(values))), values)
            case nodes.And():
                return self._constant(node.left) and self._constant(node.right)
            case nodes.Or():
                return self._constant(node.left) or self._constant(node.right)
            case nodes.Compare(ops=[operand]):
                values = [self._constant(node.expr), self._constant(operand.expr)]
                return self._compute(f"v0 {_COMPARISONS[operand.op]} v1", values)
        raise _NotConstantError

    def _compute(self, expression: str, values: Sequence[object]) -> Any:
        try:
            return self._engine.eval_expr(expression, **{f"v{number}": value for number, value in enumerate(values)})
        except (OverflowError, TypeError, ValueError):  # a value that Python cannot pass to the engine
            raise _NotConstantError from None


def _list_of(call: nodes.Call) -> str:
    [name] = call.args
    return list_key(name.as_const())


def _direction(test: nodes.Node) -> tuple[tuple[str, ...], bool, bool]:
    """The lists of `has_coupon` in a condition, and whether the condition can become true, and false, with a code."""
    lists: dict[str, None] = {}
    directions = set(_uses(test, lists, positive=True))
    return tuple(lists), bool(directions & {True, None}), bool(directions & {False, None})


def _uses(node: nodes.Node, lists: dict[str, None], *, positive: bool | None) -> Iterator[bool | None]:
    """The direction of each use of `has_coupon`: True, False under a `not`, None within a comparison or a filter."""
    match node:
        case nodes.Call():
            lists[_list_of(node)] = None
            yield positive
        case nodes.Not():
            yield from _uses(node.node, lists, positive=None if positive is None else not positive)
        case nodes.And() | nodes.Or():
            yield from _uses(node.left, lists, positive=positive)
            yield from _uses(node.right, lists, positive=positive)
        case _:
            for child in node.iter_child_nodes():
                yield from _uses(child, lists, positive=None)


def _least_characters(body: Iterable[nodes.Node]) -> int:
    """The number of characters of constant text that each mail contains at least."""
    least = 0
    for node in body:
        match node:
            case nodes.Output():
                least += sum(len(each.data) for each in node.nodes if isinstance(each, nodes.TemplateData))
            case nodes.If():
                branches = [node.body, *(each.body for each in node.elif_), node.else_]
                least += min(map(_least_characters, branches))
    return least
