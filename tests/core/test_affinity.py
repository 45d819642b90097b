"""Who made what: remembered, bounded, forgotten in time, and told to the journal."""

from gemini_poold.core.affinity import Bindings
from gemini_poold.core.journal import Journal
from gemini_poold.core.model import BoundRow

NOW = 1_795_000_000.0


def test_what_is_bound_is_known_until_it_expires():
    """The account of a name, up to the instant at which Google forgets it."""
    bound = Bindings(Journal())
    bound.bind("files/a", "work", NOW, until=NOW + 10)
    assert bound.account_of("files/a", NOW + 9) == "work"
    assert bound.account_of("files/a", NOW + 10) == ""
    assert len(bound) == 0


def test_every_change_is_a_row():
    """New, changed and gone ones are told; the same again is not."""
    journal = Journal()
    bound = Bindings(journal)
    bound.bind("files/a", "work", NOW, until=NOW + 10)
    bound.bind("files/a", "work", NOW, until=NOW + 10)
    bound.unbind("files/a")
    bound.unbind("files/a")
    assert journal.urgent
    assert journal.take_rows({}) == [
        BoundRow("files/a", "work", NOW + 10),
        BoundRow("files/a", "work", NOW + 10, gone=True),
    ]


def test_the_table_stays_bounded_and_clean():
    """The oldest make room, and new ones sweep old ones that have expired."""
    bound = Bindings(Journal(), most=3)
    for number in range(5):
        bound.bind(f"files/{number}", "work", NOW, until=NOW + 10)
    assert [bound.account_of(f"files/{n}", NOW) for n in range(5)] == ["", "", "work", "work", "work"]
    bound.bind("files/new", "work", NOW + 20, until=NOW + 30)
    assert len(bound) == 1


def test_what_was_saved_is_known_again():
    """A row of an earlier run counts, and is not written again."""
    journal = Journal()
    bound = Bindings(journal)
    bound.restore(BoundRow("files/a", "work", NOW + 10))
    assert bound.account_of("files/a", NOW) == "work"
    assert not journal.urgent
