"""Kubernetes quantities, parsed to whole numbers."""

from contextlib import suppress
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue.problems import RefusedError
from catalogue.quantity import LARGEST, parse_bytes, parse_millicores

UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "e3": 10**3,
    "E2": 10**2,
    "e+6": 10**6,
}
NO_QUANTITIES = [
    *("", "m", ".", "1x", "-1", "+1", "1 Gi", "1gi", "1GiB", "1,5", "1.5.0", "0x10", "1e999", "1Gi\n"),
    "\N{ARABIC-INDIC DIGIT ONE}",
]


@pytest.mark.parametrize(
    ("quantity", "millicores"),
    [
        ("50m", 50),
        ("1", 1000),
        (2, 2000),
        (0.5, 500),
        ("0.001", 1),
        ("1.5", 1500),
        ("1k", 10**6),
        (".5", 500),
    ],
)
def test_cpu_is_counted_in_thousandths(quantity: str | float, millicores: int) -> None:
    assert parse_millicores(quantity) == millicores


@pytest.mark.parametrize(
    ("quantity", "count"),
    [
        ("256Mi", 268_435_456),
        ("1Gi", 1_073_741_824),
        ("1G", 1_000_000_000),
        (1024, 1024),
        ("1.5Gi", 1_610_612_736),
        ("0.1Ki", 103),
        ("1e3", 1000),
        ("9E", 9 * 10**18),
        ("7Ei", 7 * 2**60),
    ],
)
def test_sizes_are_counted_in_bytes(quantity: str | int, count: int) -> None:
    assert parse_bytes(quantity) == count


@pytest.mark.parametrize("quantity", NO_QUANTITIES)
def test_what_is_no_quantity_is_refused_with_an_example(quantity: str) -> None:
    with pytest.raises(RefusedError, match="256Mi"):
        parse_bytes(quantity)
    with pytest.raises(RefusedError, match="500m"):
        parse_millicores(quantity)


@pytest.mark.parametrize("value", [True, None, [1], {"a": 1}, float("nan"), float("inf"), -0.5])
def test_other_kinds_of_value_are_refused(value: object) -> None:
    with pytest.raises(RefusedError):
        parse_bytes(value)  # type: ignore[arg-type]  # YAML holds anything
    with pytest.raises(RefusedError):
        parse_millicores(value)  # type: ignore[arg-type]  # YAML holds anything


def test_memory_in_thousandths_is_refused_because_mebibytes_were_meant() -> None:
    with pytest.raises(RefusedError, match=r"'256m' is less than it looks.*256Mi"):
        parse_bytes("256m")


def test_cpu_finer_than_a_thousandth_is_refused() -> None:
    with pytest.raises(RefusedError, match="finer than a thousandth"):
        parse_millicores("0.0005")


@pytest.mark.parametrize("quantity", ["8Ei", "9223372036854775808", "1e30"])
def test_more_than_64_bits_is_refused(quantity: str) -> None:
    with pytest.raises(RefusedError, match="more than Kubernetes can count"):
        parse_bytes(quantity)


@given(whole=st.integers(0, 4000), thousandths=st.integers(0, 999), unit=st.sampled_from(sorted(UNITS)))
def test_bytes_agree_with_exact_arithmetic(whole: int, thousandths: int, unit: str) -> None:
    exact = (whole + Fraction(thousandths, 1000)) * UNITS[unit]
    assert parse_bytes(f"{whole}.{thousandths:03}{unit}") == ceil(exact)


@given(st.integers(0, LARGEST))
def test_whole_numbers_stay_as_they_are(number: int) -> None:
    assert parse_bytes(number) == parse_bytes(str(number)) == number


@given(st.integers(0, 10**9))
def test_the_two_ways_to_write_cpu_agree(millicores: int) -> None:
    cores = f"{millicores // 1000}.{millicores % 1000:03}"
    assert parse_millicores(f"{millicores}m") == parse_millicores(cores) == millicores


@given(st.text(max_size=12) | st.text(alphabet="0123456789.eE+-mkMGTPEi", max_size=12))
def test_any_text_is_a_bounded_count_or_refused(text: str) -> None:
    for parse in (parse_bytes, parse_millicores):
        with suppress(RefusedError):
            assert 0 <= parse(text) <= LARGEST
