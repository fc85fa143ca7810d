"""Paths: JSONPath as RFC 9535 has it, over JSON that is decoded lazily.

The library parses and selects; what it adds to the standard is refused here, and where JSON and Python differ, JSON
counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import regex
from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError, JSONPathMatch, JSONPathSyntaxError, NodeList
from jsonpath.filter import UNDEFINED, BaseExpression, FloatLiteral, RelativeFilterQuery, RootFilterQuery
from jsonpath.function_extensions import ExpressionType, FilterFunction
from jsonpath.parse import Parser
from jsonpath.selectors import FilterContext
from jsonpath.stream import TokenStream
from jsonpath.token import TOKEN_SINGLE_QUOTE_STRING, Token

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.lazy import MAX_SECONDS, Array, Budget, Object, number_of
from agentmemory_engine.turns import MAX_DEPTH

MAX_PATH = 1024
"""Characters of a path."""
MAX_NESTING = 32
"""How deep brackets may stand in a path."""
MAX_PATTERN = 256
"""Characters of a regular expression in `match()` or `search()`."""

_CHARACTERS_A_STEP = 1024
_NUMBER = regex.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", regex.ASCII)
_OTHERWISE_QUOTED = regex.compile(r"""\\.|\"""", regex.DOTALL)
_REQUOTED = {"\\'": "'", '"': '\\"', '\\"': "\\'"}
_STRING = regex.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", regex.DOTALL)
_BRACKET = regex.compile(r"[\[\]()]")
_OPERATORS = ("&&", "||", "==", "!=", "<", ">", "<=", ">=")
_NO_PATH = "`path` is no JSONPath (RFC 9535), such as $.tasks[0].title"


def compile_path(path: str, budget: Budget) -> JSONPath:
    """The path, ready to be followed within a budget. Raises InvalidInput."""
    if len(path) > MAX_PATH:
        raise InvalidInput(f"A path has at most {MAX_PATH} characters, and this one has {len(path)}.")
    if _nesting(path) > MAX_NESTING:
        raise InvalidInput(f"The brackets of a path are at most {MAX_NESTING} deep.")
    try:
        compiled = _Environment(budget).compile(path)
    except JSONPathError as error:
        place = f" at character {error.token.index + 1}" if error.token is not None and error.token.index >= 0 else ""
        raise InvalidInput(f"{_NO_PATH}: {error.args[0]}{place}.") from None
    except RecursionError:
        raise InvalidInput(f"{_NO_PATH}: it is nested too deep.") from None
    assert isinstance(compiled, JSONPath)
    return compiled


def _nesting(path: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", path)):
        depth += 1 if bracket in "[(" else -1
        deepest = max(depth, deepest)
    return deepest


class _Node(JSONPathMatch):
    """A value on the way. Its path is put together only when it is asked for, at the end."""

    def new_child(self, obj: object, key: int | str) -> JSONPathMatch:
        return _Node(filter_context={}, obj=obj, parent=self, path="", parts=(*self.parts, key), root=self.root)

    def add_child(self, *_: JSONPathMatch) -> None:
        """Nobody asks for the children."""


def follow(path: JSONPath, start: Any, document: Any) -> Iterable[JSONPathMatch]:
    """Where the path leads from a value of the document. Raises InvalidInput, JSONPathError, RecursionError."""
    nodes: Iterable[JSONPathMatch] = [
        _Node(filter_context={}, obj=start, parent=None, path="", parts=(), root=document)
    ]
    for segment in path.segments:
        nodes = segment.resolve(nodes)
    return nodes


class _Relative(RelativeFilterQuery):
    """A query from `@`: from any value, and with the document as its `$` wherever it stands."""

    def evaluate(self, context: FilterContext) -> object:
        return NodeList(follow(self.path, context.current, context.root))


class _Absolute(RootFilterQuery):
    def evaluate(self, context: FilterContext) -> object:
        return NodeList(follow(self.path, context.root, context.root))


class _Parser(Parser):
    """Numbers and strings as in a document, and of the comparisons only those of the standard."""

    def parse_relative_query(self, stream: TokenStream) -> BaseExpression:
        query = super().parse_relative_query(stream)
        assert isinstance(query, RelativeFilterQuery)
        return _Relative(query.path)

    def parse_absolute_query(self, stream: TokenStream) -> BaseExpression:
        query = super().parse_absolute_query(stream)
        assert isinstance(query, RootFilterQuery)
        return _Absolute(query.path)

    def parse_integer_literal(self, stream: TokenStream) -> BaseExpression:
        return self._number(stream)

    def parse_float_literal(self, stream: TokenStream) -> BaseExpression:
        return self._number(stream)

    def parse_infix_expression(self, stream: TokenStream, left: BaseExpression) -> BaseExpression:
        token = stream.current()
        if token.value not in _OPERATORS:
            raise JSONPathSyntaxError(f"unknown operator {token.value!r}", token=token)
        return super().parse_infix_expression(stream, left)

    def _decode_string_literal(self, token: Token) -> str:
        # The library refuses the escapes of control characters, which normalized paths have.
        text = token.value
        if token.kind == TOKEN_SINGLE_QUOTE_STRING:
            text = _OTHERWISE_QUOTED.sub(lambda found: _REQUOTED.get(found[0], found[0]), text)
        try:
            return msgspec.json.decode(f'"{text}"', type=str)
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise JSONPathSyntaxError("the string is none of JSON", token=token) from None

    def _number(self, stream: TokenStream) -> BaseExpression:
        token = stream.next()
        if _NUMBER.fullmatch(token.value) is None:
            raise JSONPathSyntaxError(f"{token.value[:40]!r} is no number of JSON", token=token)
        return FloatLiteral(value=number_of(token.value))


class _Environment(JSONPathEnvironment):
    """The standard to the letter, where JSON and Python differ as well: values are compared as JSON values."""

    parser_class = _Parser
    max_recursion_depth = MAX_DEPTH + 1

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        super().__init__(strict=True)

    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        self.function_extensions["match"] = _Matches(self._budget, whole=True)
        self.function_extensions["search"] = _Matches(self._budget, whole=False)

    def getitem(self, obj: Any, key: Any) -> Any:
        # A string is a sequence to Python, and has no elements in JSON.
        return () if isinstance(obj, str) else obj[key]

    def compare(self, left: object, operator: str, right: object) -> bool:
        match operator:
            case "&&":
                return self.is_truthy(left) and self.is_truthy(right)
            case "||":
                return self.is_truthy(left) or self.is_truthy(right)
            case "==":
                return self._are_equal(left, right)
            case "!=":
                return not self._are_equal(left, right)
            case "<":
                return _is_less(left, right)
            case ">":
                return _is_less(right, left)
            case "<=":
                return _is_less(left, right) or self._are_equal(left, right)
        return _is_less(right, left) or self._are_equal(left, right)

    def _are_equal(self, left: object, right: object) -> bool:
        self._budget.spend()
        if _is_nothing(left) or _is_nothing(right):
            return _is_nothing(left) and _is_nothing(right)
        if isinstance(left, Object) and isinstance(right, Object):
            return left.texts.keys() == right.texts.keys() and all(
                self._are_equal(left[name], right[name]) for name in left
            )
        if isinstance(left, Array) and isinstance(right, Array):
            return len(left) == len(right) and all(map(self._are_equal, left, right))
        if _isnumber_of(left) and _isnumber_of(right):
            return left == right
        return type(left) is type(right) and not isinstance(left, Object | Array) and left == right


def _is_nothing(value: object) -> bool:
    return value is UNDEFINED or (isinstance(value, NodeList) and value.empty())


def _isnumber_of(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_less(left: Any, right: Any) -> bool:
    comparable = (isinstance(left, str) and isinstance(right, str)) or (_isnumber_of(left) and _isnumber_of(right))
    return comparable and bool(left < right)


class _Matches(FilterFunction):
    """`match()` and `search()`, which give up before a pattern runs away."""

    arg_types = [ExpressionType.VALUE, ExpressionType.VALUE]  # noqa: RUF012
    return_type = ExpressionType.LOGICAL

    def __init__(self, budget: Budget, *, whole: bool) -> None:
        self._budget = budget
        self._whole = whole

    def __call__(self, text: object, pattern: object) -> bool:
        if not isinstance(text, str) or not isinstance(pattern, str):
            return False
        if len(pattern) > MAX_PATTERN:
            raise InvalidInput(f"A pattern in the path has more than {MAX_PATTERN} characters.")
        self._budget.spend(1 + len(text) // _CHARACTERS_A_STEP)
        try:
            find = regex.fullmatch if self._whole else regex.search
            return find(_pattern(pattern), text, timeout=self._budget.seconds(), concurrent=True) is not None
        except regex.error:
            return False
        except TimeoutError:
            raise InvalidInput(f"A pattern in the path takes longer than {MAX_SECONDS:g} s; make it simpler.") from None


_DOT = regex.compile(r"(\\.|\[(?:\\.|[^\]\\])*\])|\.", regex.DOTALL)


def _pattern(pattern: str) -> str:
    """An I-Regexp (RFC 9485) as the library has it: there, the dot leaves out a carriage return too."""
    return _DOT.sub(lambda found: found[1] or r"[^\n\r]", pattern)
