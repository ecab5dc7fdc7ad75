"""Which cases of a parametrised test run when.

    @pytest.mark.cases(default=["vae"], integration=["sequence_vae"], rest="slow")

A law that holds for many members runs by default for a few that differ, with `-m integration` for
some more, and for all with `-m slow` beside these. Cases are named by their ids; `rest` is the
marker of those that are not named, None for the default run.
"""

import pytest

PLACES = ("default", "integration", "slow")


def place(items, *, are_whole):
    """Adds the markers that `cases` names.

    Args:
        items: The tests that were collected.
        are_whole: Whether all cases of each test were collected; a name that is no case's is an
            error then.
    """
    found = {}
    for item in items:
        mark = item.get_closest_marker("cases")
        if mark is None:
            continue
        test = item.nodeid.removesuffix(f"[{item.callspec.id}]")
        found.setdefault(test, (mark, set()))[1].add(item.callspec.id)
        where = next(
            (place for place in PLACES if item.callspec.id in mark.kwargs.get(place, ())),
            mark.kwargs["rest"],
        )
        if where in ("integration", "slow"):
            item.add_marker(where)
    for test, (mark, ids) in found.items():
        named = {name for place in PLACES for name in mark.kwargs.get(place, ())}
        if are_whole and not named <= ids:
            raise pytest.UsageError(f"{test} has no cases {sorted(named - ids)}: {sorted(ids)}")
