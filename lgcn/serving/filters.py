"""Filters: which items may be recommended, by a condition on what is known of them.

A condition is written as for pandas' ``DataFrame.query``, such as ``category == 'Fantasy' and year >= 2000``. It holds
columns, values and comparisons, and nothing else: it runs no code, so it may come from anybody.
"""

import ast
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lgcn.errors import InputError

Mask = NDArray[np.bool_]

LONGEST = 1000  # characters
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
KNOWN = "columns (between backticks if the name is no word), values, lists, and, or, not, in, ==, !=, <, <=, > and >="


def matching(columns: Mapping[str, list[Any]], condition: str) -> Mask:
    """Which rows fulfil a condition.

    A comparison with a value that is not known is false, also ``!=``. ``'Drama' in genres`` looks for one of the words
    that a text separates with |. A column whose name is no word stands between backticks. Letters that look the same
    are the same, however they are encoded.

    Args:
        columns: what is known, [n] each.
        condition: as in the module's description.

    Returns:
        [n] bool.

    Raises:
        InputError: it cannot be read, names a column that is not there, or compares what cannot be compared.

    >>> books = {"year": [1815, None, 2003], "genres": ["Novel", "Crime|Drama", "Drama"]}
    >>> matching(books, "'Drama' in genres or year < 1900").tolist()
    [True, True, True]
    """
    names: dict[str, str] = {}  # of columns between backticks, by what stands for them

    def stands_for(quoted: re.Match[str]) -> str:
        names[name := f"column_{len(names)}_"] = quoted.group(1)
        return name

    if len(condition) > LONGEST:
        raise InputError(f"the condition has more than {LONGEST:,} characters")
    try:
        tree = ast.parse(re.sub(r"`([^`]+)`", stands_for, condition.strip()), mode="eval").body
        return _Condition(columns, names).mask(tree)
    except InputError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", error)
        raise InputError(f"the condition {condition!r} cannot be read ({reason}); it may hold {KNOWN}") from error
    except TypeError as error:
        raise InputError(f"the condition {condition!r} compares what cannot be compared: {error}") from error


def example(columns: Mapping[str, list[Any]]) -> str:
    """A condition that fits the columns; empty where there are none.

    >>> example({"title": ["Emma"], "year": [1815]}), example({"genres": ["Crime|Drama"]})
    ('year >= 1815', "'Crime' in genres")
    """
    conditions = []
    for name, values in columns.items():
        value = next((value for value in values if value is not None), None)
        column = name if name.isidentifier() else f"`{name}`"
        if isinstance(value, str) and name != "title":
            conditions.append(f"{value.split('|')[0]!r} in {column}")
        elif isinstance(value, int | float):
            return f"{column} >= {value}"
    return next(iter(conditions), "")


class _Condition:
    def __init__(self, columns: Mapping[str, list[Any]], names: Mapping[str, str]) -> None:
        self.columns = {_word(name): values for name, values in columns.items()}
        self.names = names

    def mask(self, node: ast.expr) -> Mask:
        """Where a condition is true."""
        match node:
            case ast.BoolOp(op=op, values=values):
                both = operator.and_ if isinstance(op, ast.And) else operator.or_
                return reduce(both, map(self.mask, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.mask(operand)
            case ast.Compare(left=left, ops=ops, comparators=right):
                pairs = zip([left, *right], ops, right, strict=False)
                return reduce(operator.and_, [self.comparison(one, op, other) for one, op, other in pairs])
        raise self.misfit(node)

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Mask:
        one, other = self.value(left), self.value(right)
        if isinstance(op, ast.In | ast.NotIn):
            if isinstance(other, pd.Series) and isinstance(one, str):
                found = other.map(lambda text: one in str(text).split("|"), na_action="ignore").eq(True)
                given = other.notna()
            elif isinstance(one, pd.Series) and isinstance(other, list):
                found, given = one.isin(other), one.notna()
            else:
                raise self.misfit(right)
            result = found if isinstance(op, ast.In) else ~found & given
            return np.asarray(result, dtype=bool)
        if type(op) not in COMPARISONS or not any(isinstance(side, pd.Series) for side in (one, other)):
            raise self.misfit(left)
        if isinstance(one, list) or isinstance(other, list):
            raise self.misfit(right)
        known = [side.notna() for side in (one, other) if isinstance(side, pd.Series)]
        result = COMPARISONS[type(op)](one, other) & reduce(operator.and_, known)
        return np.asarray(result, dtype=bool)

    def value(self, node: ast.expr) -> Any:
        """A column, a value or a list of values."""
        match node:
            case ast.Name(id=name):
                column = self.names.get(name, name)
                if (values := self.columns.get(_word(column))) is None:
                    there = ", ".join(self.columns) or "none: give a model --data.items_path when you train it"
                    raise InputError(f"there is no column '{column}' in what is known; there is {there}")
                return pd.Series([_text(value) for value in values])
            case ast.Constant(value=bool() | int() | float() | str()):
                return _text(node.value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List(elts=values) | ast.Tuple(elts=values):
                return [self.value(one) for one in values]
        raise self.misfit(node)

    def misfit(self, node: ast.expr) -> InputError:
        return InputError(f"the condition may hold {KNOWN}, and not `{ast.unparse(node)[:80]}`")


def _word(name: str) -> str:
    """A column's name as Python reads the words of a condition."""
    return unicodedata.normalize("NFKC", name)


def _text(value: Any) -> Any:
    """A text in one encoding of its letters: é may be one sign or two."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value
