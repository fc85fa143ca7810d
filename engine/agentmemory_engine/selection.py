"""Selection: the parts of a document that a JSONPath (RFC 9535) names, as they stand in its text.

The document is decoded only as far as the path leads into it, and every value keeps the text it was sent as. A path is
a program that an agent may write: each step costs from a budget, and the work is done apart from the event loop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, NamedTuple, overload

import msgspec
import regex
from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError, JSONPathMatch, JSONPathSyntaxError, NodeList
from jsonpath.filter import (
    UNDEFINED,
    BaseExpression,
    FloatLiteral,
    RelativeFilterQuery,
    RootFilterQuery,
)
from jsonpath.function_extensions import ExpressionType, FilterFunction
from jsonpath.parse import Parser
from jsonpath.selectors import FilterContext
from jsonpath.stream import TokenStream
from jsonpath.token import TOKEN_SINGLE_QUOTE_STRING, Token
from msgspec import Raw

from agentmemory_engine.errors import InvalidInput
from agentmemory_engine.turns import MAX_DEPTH

MAX_PATH = 1024
"""Characters of a path."""
MAX_NESTING = 32
"""How deep brackets may stand in a path."""
MAX_PATTERN = 256
"""Characters of a regular expression in `match()` or `search()`."""
MAX_MATCHES = 10_000
MAX_STEPS = 200_000
"""Values that a path may look at."""
MAX_SECONDS = 1.0
"""Of the processor; it bounds what one step may cost."""
ALLOWANCE = 1 << 20
"""Bytes that the matches may have beyond four times the document: a value is in its parents as well."""

_DECODED_A_STEP = 1024
_LONGEST_NUMBER = 400
_NUMBER = regex.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", regex.ASCII)
_OTHERWISE_QUOTED = regex.compile(r"""\\.|\"""", regex.DOTALL)
_REQUOTED = {"\\'": "'", '"': '\\"', '\\"': "\\'"}
_STRING = regex.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", regex.DOTALL)
_BRACKET = regex.compile(r"[\[\]()]")
_OPERATORS = ("&&", "||", "==", "!=", "<", ">", "<=", ">=")
_NO_PATH = "`path` is no JSONPath (RFC 9535), such as $.tasks[0].title"
_NARROW = "name more of the way, or read the document whole"


class Match(NamedTuple):
    """A value's normalized path (RFC 9535 section 2.7), and its text as it stands in the document."""

    path: str
    value: Raw


class Selector:
    """Answers paths, one at a time, in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="selection")

    def close(self) -> None:
        """Let the thread end with what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def select(self, body: bytes, path: str) -> list[Match]:
        """As the function `select`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, select, body, path)


def select(body: bytes, path: str) -> list[Match]:
    """Where `path` leads in a document, in the order of RFC 9535; nowhere is an empty list.

    Raises InvalidInput for a path that is none, or that costs more than is allowed.
    """
    budget = _Budget(MAX_STEPS)
    document = _decode(Raw(body.strip()), budget)
    matches: list[Match] = []
    left = 4 * len(body) + ALLOWANCE
    try:
        for found in _follow(_compile(path, budget), document, document):
            match = Match(_normalized(found.parts), _text_of(found, body))
            left -= len(match.path) + len(memoryview(match.value))
            if left < 0:
                raise InvalidInput(f"What the path leads to is much larger than the document; {_NARROW}.")
            if len(matches) == MAX_MATCHES:
                raise InvalidInput(f"The path leads to more than {MAX_MATCHES:,} values; {_NARROW}.")
            matches.append(match)
    except (JSONPathError, RecursionError):
        raise InvalidInput(f"The path descends too often in a document this deep; {_NARROW}.") from None
    return matches


def check_path(path: str) -> None:
    """Raises InvalidInput unless this is a path."""
    _compile(path, _Budget(0))


def _compile(path: str, budget: _Budget) -> JSONPath:
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


class _Budget:
    """What one evaluation may still cost."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._deadline = time.thread_time() + MAX_SECONDS

    def spend(self, steps: int = 1) -> None:
        """Raises InvalidInput when nothing is left."""
        before, self._steps = self._steps, self._steps - steps
        if self._steps < 0:
            raise InvalidInput(f"The path looks at more than {MAX_STEPS:,} values of this document; {_NARROW}.")
        if before >> 6 != self._steps >> 6:
            self.seconds()

    def seconds(self) -> float:
        """How much time is left. Raises InvalidInput when there is none."""
        left = self._deadline - time.thread_time()
        if left <= 0:
            raise InvalidInput(f"The path takes longer than {MAX_SECONDS:g} s; {_NARROW}.")
        return left


class _Object(Mapping[str, Any]):
    """A JSON object whose members are decoded when they are looked at."""

    def __init__(self, text: Raw, budget: _Budget) -> None:
        self.texts: dict[str, Raw] = msgspec.json.decode(text, type=dict[str, Raw])
        self._budget = budget
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        self._budget.spend()
        if name not in self._known:
            self._known[name] = _decode(self.texts[name], self._budget)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)


class _Array(Sequence[Any]):
    """A JSON array whose elements are decoded when they are looked at."""

    def __init__(self, text: Raw, budget: _Budget) -> None:
        self.texts: list[Raw] = msgspec.json.decode(text, type=list[Raw])
        self._budget = budget
        self._known: dict[int, Any] = {}

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self.texts)))]
        self._budget.spend()
        text = self.texts[index]
        place = index % len(self.texts)
        if place not in self._known:
            self._known[place] = _decode(text, self._budget)
        return self._known[place]

    def __len__(self) -> int:
        return len(self.texts)


def _decode(text: Raw, budget: _Budget) -> Any:
    view = memoryview(text)
    budget.spend(len(view) // _DECODED_A_STEP)
    match view[:1].tobytes():
        case b"{":
            return _Object(text, budget)
        case b"[":
            return _Array(text, budget)
        case b'"':
            return msgspec.json.decode(text, type=str)
        case b"t":
            return True
        case b"f":
            return False
        case b"n":
            return None
    return _number(view.tobytes().decode())


def _number(text: str) -> int | float:
    """A number for comparing: whole ones exactly, others as a double."""
    if len(text) <= _LONGEST_NUMBER:
        exact = Decimal(text)
        if abs(exact.adjusted()) <= _LONGEST_NUMBER and exact == exact.to_integral_value():
            return int(exact)
    return float(text)


def _text_of(found: JSONPathMatch, body: bytes) -> Raw:
    if found.parent is None:
        return Raw(body)
    parent = found.parent.obj
    assert isinstance(parent, _Object | _Array)
    text: Raw = parent.texts[found.parts[-1]]  # type: ignore[index]
    return text


def _normalized(parts: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{_quoted(part) if isinstance(part, str) else part}]" for part in parts)


def _quoted(name: str) -> str:
    return "'" + json.dumps(name, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"


class _Node(JSONPathMatch):
    """A value on the way. Its path is put together only when it is asked for, at the end."""

    def new_child(self, obj: object, key: int | str) -> JSONPathMatch:
        return _Node(filter_context={}, obj=obj, parent=self, path="", parts=(*self.parts, key), root=self.root)

    def add_child(self, *_: JSONPathMatch) -> None:
        """Nobody asks for the children."""


def _follow(path: JSONPath, start: Any, document: Any) -> Iterable[JSONPathMatch]:
    nodes: Iterable[JSONPathMatch] = [
        _Node(filter_context={}, obj=start, parent=None, path="", parts=(), root=document)
    ]
    for segment in path.segments:
        nodes = segment.resolve(nodes)
    return nodes


class _Relative(RelativeFilterQuery):
    """A query from `@`: from any value, and with the document as its `$` wherever it stands."""

    def evaluate(self, context: FilterContext) -> object:
        return NodeList(_follow(self.path, context.current, context.root))


class _Absolute(RootFilterQuery):
    def evaluate(self, context: FilterContext) -> object:
        return NodeList(_follow(self.path, context.root, context.root))


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
        return FloatLiteral(value=_number(token.value))


class _Environment(JSONPathEnvironment):
    """The standard to the letter, where JSON and Python differ as well: values are compared as JSON values."""

    parser_class = _Parser
    max_recursion_depth = MAX_DEPTH + 1

    def __init__(self, budget: _Budget) -> None:
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
        if isinstance(left, _Object) and isinstance(right, _Object):
            return left.texts.keys() == right.texts.keys() and all(
                self._are_equal(left[name], right[name]) for name in left
            )
        if isinstance(left, _Array) and isinstance(right, _Array):
            return len(left) == len(right) and all(map(self._are_equal, left, right))
        if _is_number(left) and _is_number(right):
            return left == right
        return type(left) is type(right) and not isinstance(left, _Object | _Array) and left == right


def _is_nothing(value: object) -> bool:
    return value is UNDEFINED or (isinstance(value, NodeList) and value.empty())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_less(left: Any, right: Any) -> bool:
    comparable = (isinstance(left, str) and isinstance(right, str)) or (_is_number(left) and _is_number(right))
    return comparable and bool(left < right)


class _Matches(FilterFunction):
    """`match()` and `search()`, which give up before a pattern runs away."""

    arg_types = [ExpressionType.VALUE, ExpressionType.VALUE]  # noqa: RUF012
    return_type = ExpressionType.LOGICAL

    def __init__(self, budget: _Budget, *, whole: bool) -> None:
        self._budget = budget
        self._whole = whole

    def __call__(self, text: object, pattern: object) -> bool:
        if not isinstance(text, str) or not isinstance(pattern, str):
            return False
        if len(pattern) > MAX_PATTERN:
            raise InvalidInput(f"A pattern in the path has more than {MAX_PATTERN} characters.")
        self._budget.spend(1 + len(text) // _DECODED_A_STEP)
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
