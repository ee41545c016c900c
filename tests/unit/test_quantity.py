from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.quantity import amount, cpu, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "1"),
        ("100m", "0.1"),
        ("1.5Gi", "1610612736"),
        ("2k", "2000"),
        ("1e3", "1000"),
        ("1E", "1000000000000000000"),
        ("-1", "-1"),
        (".5", "0.5"),
    ],
)
def test_an_amount_is_read_as_kubernetes_reads_it(text: str, expected: str) -> None:
    assert amount(text) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "Gi", "1.2.3", "1 Gi", "x", ".", "1Zi", "True"])
def test_what_is_no_quantity_has_no_amount(text: str) -> None:
    assert amount(text) is None


@given(st.integers(0, 1 << 50))
def test_written_sizes_and_cpus_read_back(number: int) -> None:
    assert amount(size(number)) == number
    assert amount(cpu(number)) == Decimal(number) / 1000


def test_amounts_are_written_as_the_api_server_writes_them_back() -> None:
    assert [size(0), size(1 << 30), size(3 << 29), size(1000)] == ["0", "1Gi", "1536Mi", "1000"]
    assert [cpu(1000), cpu(1500), cpu(0)] == ["1", "1500m", "0"]
