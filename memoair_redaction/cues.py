"""Words before a number that say what it is: a telephone number, or an order number, a price, a parcel."""

import re

from memoair_redaction.spoken_text import Span

_FLAGS = re.IGNORECASE

# A telephone number is likely to follow.
_PHONE_NOUNS = (
    r"(?:tele|hand|smart)?phones?|cell(?:phone)?|mobiles?|land ?line|hot ?line|whatsapp|fax|call ?back|tel"
    r"|telefon\w*|handy\w*|mobil(?:e|nummer|funk\w*|telefon\w*)?|rufnummer\w*|festnetz\w*|natel\w*|rückruf\w*"
    r"|tel[ée]fono|m[óo]vil|celular|fijo|t[ée]l[ée]phone|portable|gsm|cellulare|telem[óo]vel|telefone|kom[óo]rk\w*"
    r"|κινητ[όο]\w*|τηλ[έε]φων\w*|телефон\w*|мобильн\w*|cep|puhelin\w*|nummeret mitt|numaram|numeroni"
)
_PHONE_VERBS = (
    r"(?:call|ring|phone|dial|text|reach|contact|message)(?: (?:me|us|him|her|them|back|it))?(?: back)?(?: (?:on|at"
    r"|under|via))?"
    r"|(?:rufen|rufe|ruf|anrufen|erreich\w*|zur[üu]ckrufen|melden)(?: (?:sie|mich|uns|ihn"
    r"|ihr))?(?: bitte)?(?: (?:unter|auf|an))?"
    r"|ll[áa]m[ae]\w*|llamar\w*|marque|contáct\w*|appel(?:ez|er)(?:-moi)?|rappel\w*|joignable|chiam\w+|bel(?: me)?"
    r"|ring(?:a|e)?(?: (?:meg|til|mig|på))*|za?dzwoni\w*|zadzwo\w*|ligue|ligar|volejte|звон\w*|soita\w*|aray\w*"
)
_POSSESSIVES = (
    r"my|our|her|his|their|meine?r?|unsere|ihre|mi|nuestro|mon|notre|il mio|mijn|mitt|mit|min|meu|o meu|m[óo]j|moje"
    r"|мой|benim"
)
_NUMBER = r"numbers?|nummer\w*|n[úu]mero\w*|num[ée]ro\w*|num[ea]r\w*|číslo|номер|αριθμός"
PHONE = re.compile(
    rf"(?<![^\W_])(?:(?:{_PHONE_NOUNS})(?![^\W\d_])|(?:{_PHONE_VERBS})(?![^\W\d_])|(?:{_POSSESSIVES}) (?:{_NUMBER}))"
    r"|手机|电话|號碼|号码|電話|携帯|번호|전화|휴대폰",
    _FLAGS,
)
# What follows may be a telephone number: "the number is".
_ANY_NUMBER = re.compile(rf"(?<![^\W_])(?:{_NUMBER})(?![^\W\d_])", _FLAGS)
# Behind the number: "612345678 is my mobile".
_PHONE_AFTER = re.compile(
    rf"[\s,.;:]{{0,3}}(?:(?:is|that's|that is|it's|es|ist|das ist|c'est|è|é)\W{{1,2}})?(?:(?:{_POSSESSIVES})\W{{1,2}})"
    rf"(?:{_PHONE_NOUNS})(?![^\W\d_])",
    _FLAGS,
)

_CARD = re.compile(
    r"(?<![^\W_])(?:credit|debit|card|visa|master ?card|amex|american express|discover|\w*karte\w*|tarjeta|carte"
    r"|carta)(?![^\W_])",
    _FLAGS,
)

# Another number follows: an order, a parcel, a customer, a product, a price.
_OTHER_NOUNS = (
    r"(?:purchase )?orders?|p\.?o\.?|confirmation|booking|reservation|invoice|bill|receipt|ticket|case|claim"
    r"|ref(?:erence)?"
    r"|customer|client|member(?:ship)?|policy|contract|account|serial|s/?n|part|model|article|item|product|sku"
    r"|employee|student"
    r"|meter|tracking|parcel|package|shipment|consignment|delivery|dhl|fedex|ups|usps|isbn|ean|gtin|upc|barcode|imei"
    r"|vin|iccid"
    r"|loan|mortgage|deal|locker|chassis|asset|quote|estimate|proposal|permit|badge|lot|batch|lottery|patent"
    r"|che(?:ck|que)|routing|sort code|build|version|rfc|transaction|loyalty|voucher|coupon|promo|license|licence"
    r"|registration|passport|tax|vat"
    r"|issue|bug|id|scores?|rates?|values?|zip|post ?code|plz|postleitzahl|postal"
    r"|(?:bestell|auftrags?|rechnungs?|vorgangs?|kunden|sendungs?|paket|artikel|serien|mitglieds?|vertrags?"
    r"|buchungs?|referenz"
    r"|konto|ticket|fall|schadens?|policen|personal|matrikel|steuer|z[äa]hler|gutschein|modell|teile|haus)\w*"
    r"|bestellung|auftrag|rechnung|vorgang|sendung|paket|artikel|buchung|gutschein|vertrag"
    r"|pedido|factura|reserva|cliente|seguimiento|env[íi]o|paquete|referencia|expediente|caso|contrato|p[óo]liza"
    r"|art[íi]culo"
    r"|cuenta|socio|serie|cup[óo]n|commande|facture|dossier|suivi|colis|ordine|fattura|bestelling|factuur"
)
_LINKS = (
    r"numbers?|num|no|nr|nummer|n[úu]mero|code|c[óo]digo|codes?|id|is|was|says|reads|it's|it|the|a|my|our|for|of|with"
    r"|from|has|have|came"
    r"|ist|war|lautet|die|der|das|meine?|mit|f[üu]r|hat|es|era|el|la|mi|de|del|con|que|number's|and|est|le"
)
_OTHER = re.compile(
    rf"(?<![^\W_])(?:{_OTHER_NOUNS})(?:[\W_]{{1,3}}(?:{_LINKS})(?![^\W_])){{0,5}}[\W_]{{0,8}}$|[#№][\w\s-]{{0,3}}$"
    r"|(?<![^\W_])1Z[0-9A-Z ]{0,16}$",
    _FLAGS,
)
_OTHER_ANYWHERE = re.compile(rf"(?<![^\W_])(?:{_OTHER_NOUNS})(?![^\W_])", _FLAGS)
# A measure follows: what was said is a quantity.
_UNIT = re.compile(
    r"\s{0,2}(?:[%$€£¥°]|(?:dollars?|euros?|pounds?|kronor|kroner|francs?|yen|rupees?|pesos?|cents?|bucks|percent"
    r"|per cent|degrees?"
    r"|miles?|meters?|metres?|feet|foot|inch(?:es)?|kilos?|kg|km|cm|mm|grams?|litres?|liters?|people|times|minutes?"
    r"|hours?"
    r"|days?|weeks?|months?|years?|prozent|meter|stunden?|minuten?|tage?|jahre?|leute|mal|libras?|d[óo]lares|por ciento"
    r"|grados|horas?|minutos?|d[íi]as?|a[ñn]os?|personas|veces|kilogramos|bytes|steps|points?|lumens|words|calories"
    r"|b?ce|ad|bc)(?![^\W_]))",
    _FLAGS,
)

_CUE_DISTANCE = 60
_MAX_DIGITS_BETWEEN = 2
_SENTENCE_END = re.compile(r"[.!][ \n]+(?=\w)|\n\n")


def names_other_number(text: str, begin: int) -> bool:
    """Return whether the words right before a number say that it is an order number, a parcel, and so on."""
    return bool(_OTHER.search(text[max(0, begin - _CUE_DISTANCE) : begin]))


def names_phone(text: str, span: Span) -> bool:
    """Return whether the words before or after a number say that it is a telephone number."""
    return _is_named(PHONE, text, span[0]) or bool(_PHONE_AFTER.match(text, span[1]))


def may_name_phone(text: str, begin: int) -> bool:
    """Return whether the words before a number speak of "the number", which may be a telephone number."""
    return _is_named(_ANY_NUMBER, text, begin)


def names_card(text: str, begin: int) -> bool:
    """Return whether the words before a number say that it is a card number."""
    return _is_named(_CARD, text, begin) and not names_other_number(text, begin)


def asks_for_card(question: str) -> bool:
    """Return whether a question speaks of a card, and of no other number."""
    return bool(_CARD.search(question)) and not _OTHER_ANYWHERE.search(question)


def is_measured(text: str, end: int) -> bool:
    """Return whether a unit or a currency follows a number."""
    return bool(_UNIT.match(text, end))


def _is_named(cue: re.Pattern[str], text: str, begin: int) -> bool:
    before = text[max(0, begin - _CUE_DISTANCE) : begin]
    cues = list(cue.finditer(before))
    if not cues:
        return False
    between = before[cues[-1].end() :]
    has_other = _OTHER_ANYWHERE.search(between) or _SENTENCE_END.search(between)
    return not has_other and sum(char.isdigit() for char in between) <= _MAX_DIGITS_BETWEEN
