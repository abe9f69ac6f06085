"""Lines of exports that are not codes: totals, words for a missing value, e-mail addresses, repeated headers."""

import re
from collections.abc import Iterable
from itertools import product

_MISSING = """
    null none nan nil na n/a n.a. n.a nat undefined missing empty blank tbd void \\n - -- --- – — . .. ... ? ?? _
    leer keine k.a. k.a n.v. vide aucun aucune néant vacio vacío nulo nula ninguno vuoto nessuno nullo vazio nenhum
    leeg geen brak pusty puste tom inget saknas intet ingen нет пусто なし 无 없음
""".split()
_TOTALS = """
    total totals totale totales totaal totali totais totalt subtotal summe gesamt gesamtsumme gesamtanzahl zwischensumme
    insgesamt endsumme somme suma sumatoria somma soma sum razem łącznie lacznie ogółem ogolem summa sammanlagt
    yhteensä yhteensa celkem součet összesen toplam итого всего сумма σύνολο 合計 总计 總計 합계 anzahl count
""".split()


def _by_first_letter(words: Iterable[str]) -> str:
    rests: dict[str, list[str]] = {}
    for word in filter(str.isascii, words):
        rests.setdefault(word[0], []).append(word[1:])
    return "|".join(f"[{first}{first.upper()}](?i:{'|'.join(each)})" for first, each in rests.items())


_BOOKEND = r"(?:end of (?:file|list|report|export|data)|eof|dateiende|ende der (?:datei|liste)|fin du fichier)"
_UNITS = (
    "codes?|coupons?|vouchers?|rows?|records?|lines?|entries|items?|gutscheine?|zeilen|datensätze|lignes?|filas?|líneas"
    "|righe|linhas?|rijen|regels|wierszy|wiersze|rader|rækker|kodów|kody|koder|codici|códigos|строк|кодов"
)
_TOTAL_WORD = "|".join(["i alt", *sorted(_TOTALS, key=len, reverse=True)])
TOTAL_WORDS = _by_first_letter([*"grand sub end eof number general overall i".split(), *_TOTALS])
"""The first words of a total, as a regular expression for ASCII letters. Grouped by their first letters, they are
matched three times as fast."""
_TOTAL = re.compile(
    rf"(?:(?:grand|sub|i|number of|general|général|overall)[ -]?)?(?:{_TOTAL_WORD})"
    rf"(?: (?:number|général|generale?|of|de|der|di|von|{_UNITS}))*"
    r"(?:\s*[:=].*|\s+[\d.,' ]+.{0,20}|\s*\(.*\))?"
    rf"|\(?\d[\d.,' ]* (?:{_UNITS})(?: .{{0,30}})?\)?"
    rf"|(?:number of )?(?:{_UNITS})\s*[:=]\s*\d.*"
    rf"|[-=* ]*{_BOOKEND}[-=.* ]*",
    re.IGNORECASE,
).fullmatch
_ADDRESS = re.compile(r"[^@<]*<[^@\s<>]+@[^@\s<>]+\.[^@\s<>]+>|[^@\s]+@[^@\s.]+(?:\.[^@\s.]+)+[.;,]?").fullmatch
_BRACKETS = str.maketrans("", "", "()<>[]{}\"'")

_HEADER_WORDS = ("coupon", "voucher", "promo", "discount", "gift", "gift card", "promotion", "gutschein", "rabatt")
_HEADERS = {
    *("code", "codes", "coupon", "coupons", "voucher", "vouchers", "gutschein", "gutscheine", "gutscheincode"),
    *("couponcode", "couponcodes", "vouchercode", "vouchercodes", "promocode", "promocodes", "gutscheincodes"),
    *("code promo", "codes promo", "code de réduction", "codice sconto", "codici sconto", "codice", "código", "codigo"),
    *("código de descuento", "código promocional", "código de desconto", "kortingscode", "actiecode", "kod rabatowy"),
    *("kod promocyjny", "kod", "rabattkod", "rabatkode", "kode", "rabattcode", "cupón", "cupom", "bon de réduction"),
    *(
        f"{word}{between}{end}"
        for word, between, end in product(_HEADER_WORDS, " _-", ("code", "codes", "number", "id"))
    ),
}


def is_missing(text: str) -> bool:
    """Whether the text stands for a missing value, such as NULL, (none) or -."""
    return text.casefold() in _MISSING_WORDS or text.translate(_BRACKETS).strip().casefold() in _MISSING_WORDS


def is_total(text: str) -> bool:
    """Whether the text is a total or the end of a report: "Total: 500", "500 codes"."""
    return _TOTAL(text) is not None


def is_address(text: str) -> bool:
    """Whether the whole text is an e-mail address, with or without a name before it."""
    return "@" in text and _ADDRESS(text) is not None


def is_header(text: str) -> bool:
    """Whether the text is a common name of a code column."""
    return text.casefold().rstrip(":") in _HEADERS


def _spellings(words: Iterable[str]) -> frozenset[str]:
    return frozenset(
        spelled for word in words for spelled in (word, word.upper(), word.title(), word.capitalize(), word.lower())
    )


_MISSING_WORDS = frozenset(map(str.casefold, _MISSING))
WORD_SPELLINGS = _spellings([*_MISSING, *_TOTALS, "NaN", "NaT", "eof"]) | {"NaN", "NaT"}
"""Words in the spellings that look like plain codes: a reader finds them without checking each line."""
HEADER_SPELLINGS = _spellings(_HEADERS)
