"""Values and keys: what comes back is what was put, and keys that are equal are one."""

from __future__ import annotations

import datetime as dt
import math
import pickle
import uuid
import zoneinfo
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mivrhash import DecodeError, decode_value, encode_value

VECTORS = Path(__file__).parents[2] / "client/src/codec/tagged/vectors.txt"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.dates()
    | st.datetimes()
    | st.datetimes(timezones=st.just(dt.timezone.utc))
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
)
hashables = st.recursive(
    scalars.filter(lambda value: not isinstance(value, Decimal) or not value.is_snan()),
    lambda inner: st.lists(inner).map(tuple) | st.frozensets(inner),
    max_leaves=8,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner)
    | st.lists(inner).map(tuple)
    | st.dictionaries(hashables, inner)
    | st.sets(hashables)
    | st.binary().map(bytearray),
    max_leaves=20,
)


def exact(value: Any) -> Any:
    """A value with its types and the signs of its zeros, for comparison; NaNs are equal here."""
    if isinstance(value, (list, tuple)):
        return type(value), [exact(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(exact(item)) for item in value)
    if isinstance(value, dict):
        return dict, [(exact(key), exact(item)) for key, item in value.items()]
    return type(value), repr(value)


@settings(max_examples=400)
@given(values)
@example([1 << 63, -(1 << 63), (1 << 63) - 1, 1 << 4000, -(1 << 64)])
@example(["\ud800", "\U0010ffff", "a" * 200, ("x",) * 100])
def test_values_come_back_with_their_types(value: Any) -> None:
    assert exact(decode_value(encode_value(value))) == exact(value)


@settings(max_examples=400)
@given(hashables, hashables)
@example(1, True)
@example((1, 0.0), (1.0, False))
@example(frozenset([1, 2]), frozenset([2.0, 1]))
@example(0.1, Decimal("0.1"))
@example(0.5, Decimal("0.50"))
@example(1 << 70, float(1 << 70))
@example((1 << 70) + 1, float(1 << 70))
@example(3, 3 + 0j)
def test_keys_are_equal_exactly_if_their_bytes_are(one: Any, other: Any) -> None:
    equal = encode_value(one, key=True) == encode_value(other, key=True)
    if one == other:
        assert equal, (one, other)
    elif exact(one) != exact(other) and "nan" not in repr((one, other)).lower():
        assert not equal, (one, other)


@settings(max_examples=200)
@given(hashables)
def test_a_key_comes_back_equal(key: Any) -> None:
    back = decode_value(encode_value(key, key=True))
    if "nan" not in repr(key).lower():
        assert back == key
        assert hash(back) == hash(key)


def test_one_moment_in_two_zones_is_one_key() -> None:
    utc = dt.datetime(2024, 7, 1, 12, tzinfo=dt.timezone.utc)
    berlin = utc.astimezone(zoneinfo.ZoneInfo("Europe/Berlin"))
    fixed = utc.astimezone(dt.timezone(dt.timedelta(hours=-3), "there"))
    naive = utc.replace(tzinfo=None)
    keys = {encode_value(moment, key=True) for moment in (utc, berlin, fixed)}
    assert len(keys) == 1
    assert encode_value(naive, key=True) not in keys
    for moment in (berlin, fixed, berlin.replace(fold=1), fixed.timetz(), berlin.timetz()):
        back = decode_value(encode_value(moment))
        assert (repr(back), back.fold) == (repr(moment), moment.fold)


class Colour(IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Name(str):
    pass


def test_subclasses_that_compare_as_their_base_are_that_key() -> None:
    for key, plain in [(Colour.RED, 1), (Point(1, 2), (1, 2)), (Name("n"), "n")]:
        assert key == plain
        assert encode_value(key, key=True) == encode_value(plain, key=True)
    for value in (Colour.RED, Point(1, 2), Name("n")):
        with pytest.raises(TypeError, match="pickle=True"):
            encode_value(value)
        assert exact(decode_value(encode_value(value, pickle=True), pickle=True)) == exact(value)


class CaseFolded(str):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


def test_what_cannot_be_a_key_is_a_type_error() -> None:
    for key in ([], {}, set(), bytearray(), ([],), (1, {})):  # type: ignore[var-annotated]
        with pytest.raises(TypeError, match="unhashable"):
            encode_value(key, key=True)
    for key in (CaseFolded("a"), object(), Fraction(1, 3)):
        with pytest.raises(TypeError, match="pickle=True"):
            encode_value(key, key=True)


def test_objects_are_unpickled_only_where_asked() -> None:
    data = encode_value(Fraction(1, 3), pickle=True)
    assert decode_value(data, pickle=True) == Fraction(1, 3)
    with pytest.raises(DecodeError, match="pickle=True"):
        decode_value(data)
    assert pickle.dumps(Fraction(1, 3), 4) in data


def test_nesting_is_bounded() -> None:
    loop: Any = []
    loop.append(loop)
    with pytest.raises(ValueError, match="deeper than 128"):
        encode_value(loop)
    deep: Any = None
    for _ in range(128):
        deep = [deep]
    assert decode_value(encode_value(deep)) == deep
    with pytest.raises(ValueError, match="deeper than 128"):
        encode_value([deep])


@settings(max_examples=500)
@given(st.binary(max_size=40))
@example(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x19\x08\x00\x02<f\x01\xff\xff\x03")
def test_bytes_that_are_no_value_raise_and_nothing_else(data: bytes) -> None:
    try:
        value = decode_value(data)
    except (ValueError, TypeError, OverflowError, LookupError):
        return
    if not (isinstance(value, float) and math.isnan(value)):
        encode_value(value)


def test_numpy_arrays_and_numbers_come_back() -> None:
    np = pytest.importorskip("numpy")
    for array in (
        np.arange(12, dtype="<i4").reshape(3, 4),
        np.array([1.5, math.nan]),
        np.zeros((0, 3), dtype=bool),
        np.array(["ab", "cde"]),
        np.array(["2024-01-01"], dtype="M8[ns]"),
        np.array(5.0),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
    ):
        back = decode_value(encode_value(array))
        assert type(back) is np.ndarray
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)
        back.flags.writeable  # noqa: B018
    number = decode_value(encode_value(np.float32(1.5)))
    assert type(number) is np.float32 and number == 1.5
    assert encode_value(np.int64(7), key=True) == encode_value(7, key=True)
    assert encode_value(np.float64(7), key=True) == encode_value(7, key=True)
    assert encode_value(np.str_("a"), key=True) == encode_value("a", key=True)
    with pytest.raises(TypeError, match="pickle=True"):
        encode_value(np.array([object()]))
    with pytest.raises(TypeError, match="unhashable"):
        encode_value(np.array([1]), key=True)


def test_the_bytes_are_those_that_are_written_down() -> None:
    """The same file is read by the tests of the Rust codec."""
    names = {"dt": dt, "uuid": uuid, "Decimal": Decimal, "zoneinfo": zoneinfo}
    lines = [line for line in VECTORS.read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 30
    for line in lines:
        expression, value_hex, key_hex = line.rsplit("|", 2)
        value = eval(expression, names)
        assert encode_value(value).hex() == value_hex.strip(), expression
        assert exact(decode_value(bytes.fromhex(value_hex))) == exact(value)
        if key_hex.strip() != "-":
            assert encode_value(value, key=True).hex() == key_hex.strip(), expression
