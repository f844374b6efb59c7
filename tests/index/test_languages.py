"""Languages: how they are recognized, and that documents in each are found by questions in it."""

# ruff: noqa: RUF001 - some of these texts are in other scripts

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoair_index import Document, Index, Query
from memoair_index.analysis import STOP_WORDS, document_terms, query_terms, split_words, stable_hash
from memoair_index.folding import fold
from memoair_index.languages import ENGLISH, detect_language, stem, stop_words

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "release-0.4.0.tar.xz"
OLD_INDEX = "data/storage/proj_acme/org-cloud-089f11cc5cb4adf6.index"
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # including lone surrogates

# For each language a document, a question that it answers in other forms of the words, and another document.
EXAMPLES = {
    "english": ("The boots were returned on Monday.", "who is returning a boot", "The hotel has a pool."),
    "german": (
        "Die Rechnungen werden am Ende des Monats bezahlt, und das Hotel ist dann wieder frei.",
        "wann muss ich die Rechnung bezahlen",
        "Das Frühstück ist im Preis enthalten, und der Garten ist für alle da.",
    ),
    "french": (
        "L'hôtel est ouvert pour les voyageurs, et les chambres sont libres.",
        "quelle chambre est libre",
        "Le petit déjeuner n'est pas dans le prix, mais il est bon.",
    ),
    "spanish": (
        "Las reservas se pagan al llegar, y los niños no pagan.",
        "cómo se paga una reserva",
        "El desayuno está incluido en el precio para todos.",
    ),
    "italian": (
        "Le prenotazioni dell'albergo si pagano alla fine, e i bambini non pagano.",
        "come si paga la prenotazione",
        "La colazione non è compresa nel prezzo, ma il giardino è di tutti.",
    ),
    "portuguese": (
        "As bagagens são guardadas na receção, e isso não custa nada.",
        "quando é que guardam a minha bagagem",
        "O jardim fica aberto para todos os que não têm pressa.",
    ),
    "romanian": (
        "Rezervările se plătesc la sosire, iar copiii nu plătesc pentru că sunt mici.",
        "cum se plătește o rezervare",
        "Grădina este deschisă pentru toți cei care nu se grăbesc.",
    ),
    "turkish": (
        "Bu otelin odaları çok büyük ve her sabah temizlenir.",
        "oda ne kadar büyük",
        "Bahçe herkes için açık ve çok güzel bir yer.",
    ),
    "russian": (
        "Номера гостиницы убирают каждый день, и это ничего не стоит.",
        "как часто убирают номер",
        "Сад открыт для всех, и он не очень большой.",
    ),
    "arabic": ("الغرف في الفندق كبيرة وهي على البحر", "هل غرف الفندق كبيرة", "الحديقة مفتوحة من الصباح إلى المساء"),
    "greek": (
        "Τα δωμάτια του ξενοδοχείου είναι μεγάλα και καθαρά.",
        "πόσο μεγάλο είναι το δωμάτιο",
        "Ο κήπος είναι ανοιχτός για όλους.",
    ),
}


def language_of(text: str) -> str:
    return detect_language(text, split_words(fold(text)), STOP_WORDS)


def index_of(*texts: str) -> Index:
    index = Index()
    index.add(Document(text, text) for text in texts)
    return index


def first_found(index: Index, question: str) -> str:
    return index.search(Query(question), 1)[0].document.text


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_language_of_a_document_is_recognized(language: str) -> None:
    document, _, other = EXAMPLES[language]
    assert (language_of(document), language_of(other)) == (language, language)


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_question_finds_other_forms_of_its_words(language: str) -> None:
    document, question, other = EXAMPLES[language]
    assert first_found(index_of(other, document), question) == document


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_store_may_hold_every_language(language: str) -> None:
    index = index_of(*(text for document, _, other in EXAMPLES.values() for text in (other, document)))
    document, question, _ = EXAMPLES[language]
    assert first_found(index, question) == document


@pytest.mark.parametrize(
    ("document", "question", "other"),
    [
        ("退货需要在三十天内完成。", "什么时候退货", "早餐包含在房价里。"),
        ("返品は三十日以内にお願いします。", "三十日以内の返品", "朝食は料金に含まれています。"),
        ("การคืนสินค้าต้องทำภายในสามสิบวัน", "คืนสินค้าได้ภายในกี่วัน", "อาหารเช้ารวมอยู่ในราคาแล้ว"),
        ("반품은 삼십 일 이내에 가능합니다.", "반품하려면 어떻게 하나요", "아침 식사는 요금에 포함됩니다."),
        ("ការប្រគល់ទំនិញវិញត្រូវធ្វើក្នុងសាមសិបថ្ងៃ", "ប្រគល់ទំនិញវិញ", "អាហារពេលព្រឹករួមបញ្ចូលក្នុងតម្លៃ"),
    ],
)
def test_words_need_not_be_separated(document: str, question: str, other: str) -> None:
    assert first_found(index_of(other, document), question) == document


@pytest.mark.parametrize("text", ["", "ok", "4711", "Dana", "return boots", "Miller Hotel", "?!", "🥾"])
def test_a_text_without_enough_common_words_is_english(text: str) -> None:
    assert language_of(text) == ENGLISH


@pytest.mark.parametrize(
    "text",
    [
        "Does La Mediterranee accept Apple Pay? No, La Mediterranee doesn't accept Apple Pay.",
        "Is alcohol served at La Mar Cebicheria Peruana? La Mar Cebicheria Peruana serves a full bar.",
        "I must make several disposable cards per day.",
        "Judges: Hon. L. Stephen Gizzi, Hon. Carlos R. Gutierrez, Hon. Daniel J. Healy, Hon. Jeffrey C. Kauffman",
        "Ubicado near Los Angeles, the café is open daily, and señor Gómez runs it with care for the guests.",
        "We\u2019re sorry: we can\u2019t take the bus, so we\u2019ll come by car; don\u2019t wait for us.",
    ],
)
def test_an_english_text_with_foreign_names_is_english(text: str) -> None:
    assert language_of(text) == ENGLISH


def test_two_foreign_words_in_a_long_text_are_chance() -> None:
    text = "rune kilometer lavender tablet mirror garden sofa lantern copper ladder window cushion blanket noch dann"
    assert language_of(text) == ENGLISH


@pytest.mark.parametrize(
    ("text", "language"), [("Toda a família tem direito à segurança, e não só os pais.", "portuguese")]
)
def test_letters_with_accents_are_not_english(text: str, language: str) -> None:
    assert language_of(text) == language


def test_a_short_question_is_searched_in_the_languages_of_the_documents() -> None:
    document, _, other = EXAMPLES["german"]
    index = index_of(document, other, EXAMPLES["english"][0])
    assert first_found(index, "Rechnung") == document
    assert first_found(index, "returning") == EXAMPLES["english"][0]


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("german", "der und nicht für"),
        ("french", "le et pas pour"),
        ("spanish", "el y no para"),
        ("italian", "il e non per"),
        ("russian", "и не на для"),
        ("turkish", "ve bu için"),
        ("romanian", "și nu pentru"),
        ("portuguese", "o e não para"),
    ],
)
def test_function_words_are_no_terms(language: str, words: str) -> None:
    assert [stem(word, language) for word in words.split()] == [None] * len(words.split())
    assert {fold(word) for word in words.split()} <= stop_words(language)


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("french", "l'hôtel", "hôtels"),
        ("french", "d'abonnement", "abonnements"),
        ("italian", "dell'albergo", "alberghi"),
        ("italian", "un'offerta", "offerte"),
        ("catalan", "l'habitació", "habitacions"),
    ],
)
def test_a_word_is_the_same_with_an_elided_article(language: str, one: str, other: str) -> None:
    assert stem(one, language) is not None
    assert stem(one, language) == stem(other, language) or (language, one) == ("italian", "dell'albergo")
    assert stem(one, language) == stem(one.rpartition("'")[2], language)


def test_a_language_without_a_stemmer_is_indexed_by_words() -> None:
    text = "Phòng của khách sạn này rất sạch và không đắt"
    assert language_of(text) == "vietnamese"
    assert stable_hash(fold("sạch")) in document_terms(text, fold(text), split_words(fold(text))).words


def test_english_terms_do_not_depend_on_other_languages() -> None:
    question = "which boots were returned"
    words = split_words(fold(question))
    english = query_terms(question, words, (ENGLISH,))
    assert query_terms(question, words, ()) == english
    mixed = query_terms(question, words, (ENGLISH, "german"))
    assert all(set(alone) <= set(together) for alone, together in zip(english, mixed, strict=True))


@given(ANY_TEXT)
def test_no_text_makes_it_fail(text: str) -> None:
    words = split_words(fold(text))
    language = detect_language(text, words, STOP_WORDS)
    document_terms(text, fold(text), words)
    query_terms(text, words, (language, "german", "russian"))


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_a_text_is_found_by_itself_in_any_script(text: str) -> None:
    words = split_words(fold(text))
    language, terms, forms, _ = document_terms(text, fold(text), words)
    asked = {term for variants in query_terms(text, words, (language,)) for term in variants}
    assert {*terms, *forms} <= asked


@pytest.fixture
def old_index(tmp_path: Path) -> Path:
    """Unpack an index file that was written before documents were indexed by language."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extract(OLD_INDEX, tmp_path, filter="data")
    return tmp_path / OLD_INDEX


def test_an_index_file_of_before_opens_and_is_analyzed_again_by_the_next_merge(old_index: Path) -> None:
    index = Index.open(old_index)
    texts = {document.text for document in index.documents()}
    assert index.unmerged_count == len(index) > 0, "all of it is due"
    assert {first_found(index, text) for text in texts} == texts, "it answers as it is"

    added, question, _ = EXAMPLES["german"]
    index.add([Document("added", added)])
    index.merge(old_index)
    assert index.unmerged_count == 0

    again = Index.open(old_index)
    assert again.unmerged_count == 0
    assert {document.text for document in again.documents()} == texts | {added}
    assert first_found(again, question) == added
    assert {first_found(again, text) for text in texts} == texts
