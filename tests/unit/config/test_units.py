import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dms_bench.config.budget import MacsBudget, format_amount
from dms_bench.config.units import Amount, Count, Seconds, WholeCount


def read(kind, value):
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        (Count, "450M", 450e6),
        (Count, " 5.47 B ", 5.47e9),
        (Count, "1.2g", 1.2e9),
        (Count, "1e6", 1e6),
        (Count, ".5k", 500),
        (WholeCount, "300k", 300_000),
        (WholeCount, "1e3", 1000),
        (Amount, "30%", 0.3),
        (Amount, "57 %", 0.57),
        (Amount, "100%", 1.0),
        (Amount, 0.3, 0.3),
        (Amount, "450M", 450e6),
        (Seconds, "3ms", 0.003),
        (Seconds, "2s", 2),
        (Seconds, "1.5h", 5400),
        (Seconds, 4, 4),
    ],
)
def test_written_quantities(kind, text, number):
    assert read(kind, text) == number


@pytest.mark.parametrize("kind", [Count, WholeCount, Amount, Seconds])
@pytest.mark.parametrize(
    "value",
    [
        *(True, False, math.nan, math.inf, -math.inf, -1, 0, "-3", "0", "0%", "nan", "inf", "1e999", 10**400),
        *("", "%", "M", "3 apples", "1.2.3", "٣", None, [], [1], {}, "1e3e3", "5 5"),
    ],
)
def test_refused_quantities(kind, value):
    with pytest.raises(ValidationError) as caught:
        read(kind, value)
    (error,) = caught.value.errors()
    assert error["type"] == "value_error", "the message is ours, in one line"
    assert "\n" not in error["msg"]


def test_half_a_thing_is_no_whole_count():
    with pytest.raises(ValidationError):
        read(WholeCount, "1.5")


@pytest.mark.parametrize("target", ["101%", "300%"])
def test_more_than_the_supernet_is_refused_at_the_budget(target):
    with pytest.raises(ValidationError, match="more than the whole supernet"):
        MacsBudget(target=target)


@given(st.floats(min_value=1e-6, max_value=1e15))
def test_an_amount_is_read_back_as_it_was_written(amount):
    assert read(Amount, format_amount(amount)) == pytest.approx(amount, rel=1e-11)


@given(st.integers(1, 10**11), st.integers(1, 10**11))
def test_different_budgets_have_different_labels(one, other):
    labels = {MacsBudget(target=one).label(), MacsBudget(target=other).label()}
    assert len(labels) == len({one, other})


@given(st.text())
def test_any_text_is_a_quantity_or_refused(text):
    for kind in (Count, Amount, Seconds):
        with contextlib.suppress(ValidationError):
            assert 0 < read(kind, text) < math.inf
