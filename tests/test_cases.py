"""Which cases of a parametrised test run when."""

from types import SimpleNamespace

import pytest
from cases import place


def collected(ids, **kwargs):
    """Items of a test with these cases, each with the markers that it is given."""

    def item(case):
        added = []
        return SimpleNamespace(
            nodeid=f"tests/test_x.py::test_law[{case}]",
            callspec=SimpleNamespace(id=case),
            get_closest_marker=lambda name: SimpleNamespace(kwargs=kwargs),
            add_marker=added.append,
            added=added,
        )

    return [item(case) for case in ids]


def test_each_case_runs_where_it_is_named_and_the_others_by_the_rest():
    items = collected("abcd", rest="slow", default=["a"], integration=["b"])
    place(items, are_whole=True)
    assert [item.added for item in items] == [[], ["integration"], ["slow"], ["slow"]]
    items = collected("ab", rest=None, slow=["b"])
    place(items, are_whole=True)
    assert [item.added for item in items] == [[], ["slow"]]


def test_a_name_that_is_no_case_is_refused_unless_some_cases_alone_were_asked_for():
    with pytest.raises(pytest.UsageError, match=r"test_law has no cases \['c'\]: \['a', 'b'\]"):
        place(collected("ab", rest="slow", default=["a", "c"]), are_whole=True)
    place(collected("ab", rest="slow", default=["a", "c"]), are_whole=False)
