from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.xml.cpuset import CORE_LIMIT, cores_in, mask_of, parse_cpuset, plain, shown


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0", {0}),
        ("0-7,^3", {0, 1, 2, 4, 5, 6, 7}),
        ("1-4,^3,6", {1, 2, 4, 6}),
        ("^3,0-4", {0, 1, 2, 3, 4}),  # fields count in order: the exclusion came too early
        ("0-4,^3,3", {0, 1, 2, 3, 4}),
        (" 2 - 4 , 6 ", {2, 3, 4, 6}),
        ("2,", {2}),
        ("5-5", {5}),
        ("1-+3", {1, 2, 3}),
        ("0--0", {0}),
        ("0000000000000000000007", {7}),
        ("16383", {16383}),
        ("2,^9", {2}),
    ],
)
def test_what_libvirt_takes(text: str, cores: set[int]) -> None:
    assert set(cores_in(parse_cpuset(text))) == cores


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (",1", "expected a core"),
        ("1,,2", "expected a core"),
        ("1-", "expected a core"),
        ("1 2", "expected a core"),
        ("^1-3", "expected a core"),
        ("^ 1", "expected a core"),
        ("1;2", "expected a core"),
        ("-1", "expected a core"),
        ("0x2", "expected a core"),
        ("\uff12", "expected a core"),  # a digit, but not an ASCII one
        ("3-2", "ends before it begins"),
        ("1--2", "ends before it begins"),
        ("16384", "is not below 16384"),
        ("^16384,2", "is not below 16384"),
        ("0-16384", "is not below 16384"),
        ("9" * 6000, "is not below 16384"),
        ("3,^3", "leaves no core"),
        ("^3", "leaves no core"),
    ],
)
def test_what_libvirt_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_cpuset(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


FIELDS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 99), st.integers(0, 20)),
    st.tuples(st.just("drop"), st.integers(0, 99), st.just(0)),
)


@given(st.lists(FIELDS, min_size=1, max_size=12), st.sampled_from(["", " ", "  "]))
def test_fields_apply_in_the_order_they_are_written(fields: list[tuple[str, int, int]], blank: str) -> None:
    expected: set[int] = set()
    written = []
    for what, first, more in fields:
        cores = set(range(first, first + more + 1))
        expected = expected | cores if what == "add" else expected - cores
        last = f"{blank}-{blank}{first + more}" if more else ""
        written.append(f"{'^' if what == 'drop' else ''}{first}{last}")
    text = f"{blank},{blank}".join(written)
    if expected:
        assert cores_in(parse_cpuset(text)) == tuple(sorted(expected))
    else:
        with pytest.raises(ValueError, match="leaves no core"):
            parse_cpuset(text)


@given(st.text(alphabet="0123456789,-^ +x\n", max_size=40))
def test_any_text_is_taken_or_refused_with_a_value_error(text: str) -> None:
    try:
        mask = parse_cpuset(text)
    except ValueError:
        return
    assert 0 < mask < 1 << CORE_LIMIT


@settings(deadline=None)
@given(st.frozensets(st.integers(0, CORE_LIMIT - 1), max_size=20))
def test_masks_and_cores_are_each_others_inverse(cores: frozenset[int]) -> None:
    assert cores_in(mask_of(cores)) == tuple(sorted(cores))


def test_foreign_text_is_made_fit_for_one_line() -> None:
    assert plain("a\n b\x1b[31m\u202ec") == "a b?[31m?c"
    assert plain("x" * 100, 10) == "xxxxxxx..."
    assert shown("2\t-3") == "'2 -3'"
