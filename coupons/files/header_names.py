"""The names that columns have in exports: names of the column with the codes, and names of other columns.

A name is compared without case, accents, separators and years: "Codes coupon 2026" is `codescoupon`. The names of code
columns are made of parts, because shops combine them freely: "Codice buono sconto", "Gutschein-Nr.", "voucher_id".
"""

import re
from enum import IntEnum, IntFlag
from functools import lru_cache
from unicodedata import normalize

from coupons.files.format import CODE_COLUMNS, normalized_header


class NameKind(IntEnum):
    """How surely a name is the name of a code column. A weak name, such as `Key`, counts if there is no strong one."""

    NONE = 0
    WEAK = 1
    STRONG = 2


def _words(text: str) -> list[str]:
    """The words of a list in which `code/s` stands for `code` and `codes`."""
    found = []
    for word in text.split():
        stem, *endings = word.split("/")
        found += [stem, *(stem + ending for ending in endings)]
    return found


class _Part(IntFlag):
    """The kinds of words in the name of a code column."""

    CODE = 1
    COUPON = 2
    NUMBER = 4
    WEAK = 8
    OTHER = 16


_WORDS = {
    _Part.CODE: """
        code/s/n codice codici codigo/s kode/r/rne/n kod/y/er/u/ow/lar/okat koodi/t cod/uri
        promocode/s κωδικοσ κωδικοι κωδικου код/ы/а/ов промокод/ы/а/ов コード 代码 代碼 码 碼 코드 קוד كود รหัส""",
    _Part.COUPON: """
        coupon/s/es voucher/s/a/y promo/s serial/s gutschein/e bon/s/y/nen/u/uri
        kupon/y/er/ok/u/i/ow/s kupong/er coupen/s cupon/es/s cupom cupao cupoes buono buoni vale/s
        waardebon/nen tegoedbon/nen cadeaubon/nen kortingsbon/nen presentkort gavekort
        lahjakort/it/ti kuponki/t poukaz/y/ky giftcard/s giftvoucher/s купон/ы/ов/а ваучер/ы/ов/а
        κουπονι/α/ου/ων クーポン 优惠券 優惠券 优惠 優惠 兑换 쿠폰 קופון كوبون คูปอง vardecheck/ar talon/y kuponger""",
    _Part.NUMBER: """
        number/s num/ero/eros/er nummer/n no/s nr/s n номер/а αριθμοσ 番号 号 번호""",
    _Part.WEAK: """
        id/s pin/s key/s token/s string/s schlussel kennung/en cle/s llave/s chiave chiavi chave/s""",
    _Part.OTHER: """
        promotion/s/al/nel/nels/nelle/nelles promozional/e/i promocional/es promocionais promocao promocion/es
        promocyjn/y/e/a/ych rabatow/y/e/a/ych znizkow/y/e/a/ych rabatt rabat/s discount/s descuento/s desconto/s sconto
        sconti reduction/s remise/s korting/s avantage/s cadeau/x regalo regali gift/s geschenk prezent redemption
        redeem einlose einloese aktion/s actie kampagne/n kampanj campaign/s campagne bonus offer/s reward/s access
        acceso accesso acces dostepu activation aktivierung/s freischalt license licence lizenz serien unique unico
        unica unikatow/y/e single use rebate/s tilbud/s erbjudande gave gavekort/s present/korts varde vaerdi alennus
        ale tarjous slevov/y/e/a slev/a/y kedvezmeny reducere indirim promosyon скидки скидка εκπτωσησ 割引 折扣 할인
        cheque/s achat podarunkow/y/e tegoed waarde shop vorteil/s treue loyalty fidelite fidelidad fedelta card/s kort
        karte/n karty tickets ticket of the de del della dei di du des das do da dos d l la le les el los il en et und
        and or von van der den die het your my our list/e/a export new all customer gutschein/s coupons aktions
        claim/s""",
}
_ROW_IDS = ("id", "ids")  # the number of a row in a database
_PARTS: dict[str, _Part] = {}
for _part, _text in _WORDS.items():
    for _word in _words(_text):
        _PARTS.setdefault(_word, _part)
_MAX_WORD_CHARS = max(map(len, _PARTS))
MAX_NAME_KEY_CHARS = 60

_OTHER_NAMES = frozenset(
    """
    name firstname lastname surname fullname vorname nachname anrede salutation title titel prenom nom nombre
    apellido apellidos nome cognome sobrenome voornaam achternaam naam imie nazwisko fornamn efternamn namn
    fornavn efternavn navn etunimi sukunimi nimi имя фамилия firma company empresa azienda societe bedrijf foretag
    firmanavn email emails mail emailaddress emailadresse mailadresse address addresses adresse adresses direccion
    indirizzo endereco adres adress correo correoelectronico courriel adresseemail adressemail postaelettronica
    epost epostadress epostadresse adresemail emailadres indirizzoemail почта phone telephone telefon telefono
    telefone telefoon tel mobile handy street strasse rue calle via rua straat ulica gata gade city town ort stadt
    ville ciudad citta cidade plaats miasto stad by zip zipcode postcode plz codepostal codigopostal cap cep
    kodpocztowy postnummer country land pays pais paese kraj lands state region customer customerid customernumber
    kunde kundennummer kundennr client cliente klant klient kund orderid order value amount price currency wert
    betrag preis wahrung valeur montant prix devise valor importe precio moneda valore importo prezzo valuta moeda
    preco waarde bedrag prijs wartosc kwota cena waluta varde belopp pris vaerdi belob balance discount percent
    percentage rabatt prozent remise reduction descuento sconto desconto korting rabat znizka euro eur usd date
    datum created createdat createddate createdon erstellt erstelltam validfrom validuntil validto validthru until
    from gultigab gultigbis expires expiry expirydate expiresat expirationdate expiration ablaufdatum cree creele
    datecreation valable valablejusquau dateexpiration fecha fechacreacion creado valido validohasta caducidad
    vencimiento data datacreazione creato scadenza validade criado criadoem geldigtot aangemaakt vervaldatum wazny
    waznydo utworzono dataaktywacji giltigtill skapad utgar gyldigtil oprettet udlober start end begin ende debut
    fin description beschreibung desc note notes notiz bemerkung remarque descripcion descrizione descricao
    omschrijving opis beskrivning beskrivelse comment comments kommentar commentaire comentario used timesused
    uses usage usagecount status state active enabled redeemed redeemedat verwendet benutzt eingelost aktiv
    utilise statut usado utilizado estado usato utilizzato stato gebruikt uzyty wykorzystany anvand brugt quantity
    count anzahl menge quantite cantidad quantita quantidade aantal ilosc antal limit usagelimit type typ art tipo
    soort rodzaj typ category kategorie categorie categoria kategoria group gruppe groupe grupo gruppo groep grupa
    grupp campaign kampagne campagne campana campagna campanha kampania kampanj brand marke marque marca merk
    marka shop store filiale product produkt produit producto prodotto produto sku language sprache langue idioma
    lingua taal jezyk sprak sprog row line zeile ligne linea linha regel wiersz rad raekke position pos
    """.split()
)
"""Names that occur only in a header. An error message may quote a row that contains one of them."""

_LETTERS = str.maketrans({"ł": "l", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", "ς": "σ"})


@lru_cache(maxsize=4_096)
def name_key(cell: str) -> str:
    """The name for comparison: "Código de cupón (2026)" becomes "codigodecupon"."""
    plain = "".join(each for each in normalize("NFKD", cell.strip().casefold()) if not "\u0300" <= each < "\u0370")
    text = re.sub(r"\b(?:19|20)\d\d\b", "", normalize("NFC", plain).translate(_LETTERS))
    text = re.sub(r"(?<=\D)\d{1,2}\W*$", "", text) if re.search(r"\s\d{1,2}\W*$", text) else text
    return re.sub(r"[\W_]", "", text)


@lru_cache(maxsize=4_096)
def code_name(cell: str) -> NameKind:
    """Whether the cell is a name of a code column. A name with other digits than a year is not: PROMO10 is a code."""
    if normalized_header(cell) in CODE_COLUMNS:
        return NameKind.STRONG
    key = name_key(cell)
    if not key or len(key) > MAX_NAME_KEY_CHARS or re.search(r"\d", key) or key in _OTHER_NAMES or key in _ROW_IDS:
        return NameKind.NONE
    if re.search(r"\d", cell) and not re.search(r"[a-z]|\s", cell.strip()):
        return NameKind.NONE  # GIFT-2026 is a code
    return max((_name_kind(parts) for parts in _divisions(key)), default=NameKind.NONE)


def _divisions(key: str) -> set[_Part]:
    """The kinds of words in the name, for each way to divide it into known words."""
    found: list[set[_Part]] = [{_Part(0)}, *(set() for _ in key)]
    for start in range(len(key)):
        for end in range(start + 1, min(start + _MAX_WORD_CHARS, len(key)) + 1) if found[start] else ():
            if part := _PARTS.get(key[start:end]):
                found[end] |= {parts | part for parts in found[start]}
    return found[-1]


def _name_kind(parts: _Part) -> NameKind:
    if _Part.WEAK in parts or parts == _Part.NUMBER | _Part.OTHER:
        return NameKind.WEAK
    return NameKind.STRONG if parts & (_Part.CODE | _Part.COUPON) else NameKind.NONE


def has_code_word(cell: str) -> bool:
    """Whether a word of the name is one for a code or a key, whatever the other words are. `ID` is not."""
    words = (_PARTS.get(name_key(word), _Part(0)) for word in re.split(r"[\W_]+", cell) if name_key(word) != "id")
    return any(part & (_Part.CODE | _Part.COUPON | _Part.WEAK) for part in words)


def known_words() -> list[str]:
    """The words and names of this module that have only ASCII letters and more than three of them."""
    return sorted(each for each in {*_OTHER_NAMES, *_PARTS} if each.isascii() and each.isalpha() and len(each) > 3)


def is_other_name(cell: str) -> bool:
    """Whether the cell is a name of a column that holds no codes."""
    return name_key(cell) in _OTHER_NAMES
