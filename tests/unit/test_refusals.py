"""What is wrong with a suite beyond its words is said of all experiments at once."""

import pytest

from dms_bench.errors import Refusals, UserError


def test_lines_name_their_experiment_once():
    refusals = Refusals()
    for name, message in (("a", "no data"), ("b", "experiment 'b': too large"), ("a", "no data"), ("b", "one\ntwo")):
        with refusals.of(name):
            raise UserError(message)
    with pytest.raises(UserError) as caught:
        refusals.check()
    assert str(caught.value).splitlines() == [
        "experiment 'a': no data",
        "experiment 'b': too large",
        "experiment 'b': one",
        "experiment 'b': two",
    ]


def test_nothing_is_raised_where_nothing_was_wrong_and_other_errors_pass():
    refusals = Refusals()
    with refusals.of("a"):
        pass
    refusals.check()
    with pytest.raises(ZeroDivisionError), refusals.of("a"):
        1 / 0  # noqa: B018


def test_what_is_wrong_in_several_experiments_is_one_line():
    refusals = Refusals()
    for name in ("a", "b", "c", "d", "e", "a"):
        with refusals.of(name):
            raise UserError(f"experiment {name!r}: no data")
    with refusals.of("b"):
        raise UserError("too large")
    with pytest.raises(UserError) as caught:
        refusals.check()
    assert str(caught.value).splitlines() == [
        "experiments 'a', 'b', 'c' and 2 more: no data",
        "experiment 'b': too large",
    ]
