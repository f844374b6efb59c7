"""The order of passages for the context, and which utterances say nothing or the same."""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

import pytest

from memoair_index import Document, Hit, Index
from memoair_runtime.memory.turn import StoredTurn, to_documents
from memoair_runtime.recall.lanes.passage_order import order_passages, sort_latest
from memoair_runtime.recall.utterances import content_key, is_bare_question, says_nothing

START = datetime(2026, 3, 2, 9, 30, tzinfo=timezone.utc)
# Of three passages, each of which repeats the question's words.
LONG_REPLY = " ".join(
    f"For your boat trip number {number}, the boat is what matters on a boat trip." for number in range(30)
)


def make_documents(number: int, user_text: str, assistant_text: str) -> list[Document]:
    """Return the documents of a turn; turns with higher numbers are later."""
    said_at = START + timedelta(days=number)
    turn = StoredTurn(
        f"event-{number}", f"call-{number}", 0, "t", "Dana", "Juno", user_text, assistant_text, said_at, {}
    )
    return to_documents(turn)


def make_hits(*documents: Document, step: float = 0.1) -> list[Hit]:
    """Return hits for documents, best first, with scores from 10 down."""
    return [
        Hit(at, 10 - at * step, lambda at: documents[at], lambda _: {}, NoConfidence()) for at in range(len(documents))
    ]


class NoConfidence:
    """An estimate that these tests do not use."""

    def __call__(self, position: int, /) -> float:
        return 0.0

    def features(self, position: int, /) -> Mapping[str, float]:
        return {}


def ordered_texts(query: str, *documents: Document) -> list[str]:
    return [document.text for document in order_passages(make_hits(*documents), query)]


def test_the_callers_words_come_before_a_long_reply_and_one_passage_of_it_before_other_turns() -> None:
    own, *reply = make_documents(1, "I go with my cousin, for a week or so, in the spring.", LONG_REPLY)
    (other,) = make_documents(2, "And I take the cat along, whatever anybody says about it.", "")
    assert len(reply) >= 3
    hits = make_hits(*reply, own, other, step=0.9)
    texts = [document.text for document in order_passages(hits, "Who comes on the boat trip?")]
    # The last passages are those of the reply that had to wait; a turn has at most three.
    assert texts == [own.text, reply[0].text, other.text, reply[1].text]


def test_a_short_reply_keeps_its_place() -> None:
    own, reply = make_documents(1, "I wonder about the boat, the trip, and about all the rest of it, too.", "At nine.")
    assert ordered_texts("When does the boat leave?", reply, own) == [reply.text, own.text]


@pytest.mark.parametrize(
    ("old", "new", "question"),
    [
        ("My boat trip is in May.", "My boat trip is in June.", "When is my boat trip?"),
        (
            "The boat trip starts in Cork.",
            "No, I said the boat trip starts in Cobh, not there.",
            "Where does the trip start?",
        ),
        ("My boat is called Ada.", "I renamed it, my boat is now called Eve.", "What is my boat called?"),
    ],
)
def test_what_may_replace_a_statement_comes_before_it(old: str, new: str, question: str) -> None:
    (old_document,), (new_document,) = make_documents(1, old, ""), make_documents(5, new, "")
    between = [document for number in range(2, 5) for document in make_documents(number, f"Boat {number}!", "")]
    texts = ordered_texts(question, old_document, *between, new_document)
    assert texts.index(new) == texts.index(old) - 1


@pytest.mark.parametrize(
    "later",
    [
        "My boat trip is in May.",  # the same
        "When is my boat trip?",  # says nothing
        "The weather is now worse in June.",  # about something else
        "I paint the boat.",  # shares one word only
    ],
)
def test_other_statements_do_not_move_ahead(later: str) -> None:
    old, new = make_documents(1, "My boat trip is in May.", ""), make_documents(5, later, "")
    assert ordered_texts("When is my boat trip?", *old, *new)[0] == old[0].text


def test_an_earlier_statement_does_not_replace_a_later_one() -> None:
    old, new = make_documents(1, "My boat trip is in May.", ""), make_documents(5, "My boat trip is in June.", "")
    assert ordered_texts("When is my boat trip?", *new, *old) == [new[0].text, old[0].text]


def test_what_says_nothing_is_behind_and_repeats_are_left_out() -> None:
    documents = [
        *make_documents(1, "Hi there!", "I don't know."),
        *make_documents(2, "hi there", "I do not know."),
        *make_documents(3, "We go sailing.", "In the blue boat."),
    ]
    assert ordered_texts("Which boat?", *documents)[:2] == ["We go sailing.", "In the blue boat."]
    assert len(ordered_texts("Which boat?", *documents)) == 5  # "I do not know" and "I don't know" are two wordings
    latest = [document.text for document in sort_latest(documents)]
    assert latest[:2] == ["We go sailing.", "In the blue boat."]
    assert "hi there" in latest
    assert "Hi there!" not in latest


# Wording


@pytest.mark.parametrize(
    "text",
    [
        "Where is my parcel?",
        "so where is my parcel",
        "Hi. Um, do I have a seat?",
        "tell me when it leaves",
        "几点\N{FULLWIDTH QUESTION MARK}",
    ],
)
def test_bare_questions(text: str) -> None:
    assert is_bare_question(text)
    assert says_nothing(text, is_reply=False)


@pytest.mark.parametrize(
    "text",
    [
        "I live in Cork. Where is my parcel?",
        "It is red.",
        "I don't eat nuts.",
        "My code is 12, is that right",
        "There is no elevator in our building.",
        "No, the blue one.",
    ],
)
def test_statements_say_something(text: str) -> None:
    assert not is_bare_question(text)
    assert not says_nothing(text, is_reply=False)
    assert not says_nothing(text, is_reply=True)


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "Sorry, I'm not sure.",
        "I don't see any appointment.",
        "i have no record of that",
        "Let me check. One moment, please.",
        "Good morning! How can I help you today?",
        "Thank you, goodbye.",
    ],
)
def test_replies_without_an_answer(text: str) -> None:
    assert says_nothing(text, is_reply=True)


def test_a_reply_that_also_answers_says_something() -> None:
    assert not says_nothing("I don't know the hour. The day is Friday.", is_reply=True)
    assert not says_nothing("I'm not sure. " * 30, is_reply=True)  # a long text is not judged by its wording
    assert not says_nothing("I don't know my own number by heart.", is_reply=False)


def test_texts_that_say_the_same_have_one_key() -> None:
    assert content_key("Where is my parcel?") == content_key("so, where is MY parcel please")
    assert content_key("The boat is red.") == content_key("um the boat is red")
    for other in ("The boat is blue.", "The boat was red.", "The boat is not red.", "Is the boat red?"):
        assert content_key(other) != content_key("The boat is red.")
    assert content_key("From Rome to Oslo.") != content_key("From Oslo to Rome.")


def test_the_latest_documents_of_an_index_are_those_with_the_latest_times() -> None:
    index = Index()
    index.add(document for number in (3, 1, 2) for document in make_documents(number, f"Boat {number}.", ""))
    index.add([Document("timeless", "A boat.")])
    index.remove([make_documents(2, "Boat 2.", "")[0].id])
    latest = index.latest_documents(5, lambda _: True)
    assert [document.text for document in latest] == ["Boat 3.", "Boat 1."]
    assert [document.text for document in index.latest_documents(1, lambda document: "3" not in document.text)] == [
        "Boat 1."
    ]
    assert Index().latest_documents(5, lambda _: True) == []
