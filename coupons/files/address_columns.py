"""Finds the column with the addresses in a table, by the names that programs in many languages give it."""

import re
from collections.abc import Sequence

from coupons.files.address_lines import find_address
from coupons.files.columns import get_columns, header_words, list_columns, notice, shown_column
from coupons.files.decoding import FileError

CODES = (
    "no column contains addresses, and these look like codes: did you mean `coupons import --list`? Otherwise specify"
    " the address column with --column"
)
_CODE = re.compile(r"(?=.*[0-9])(?=.*[A-Z])[A-Z0-9][A-Z0-9_.-]{3,}").fullmatch


def find_address_column(
    header: Sequence[str], samples: Sequence[Sequence[str]], column: str | int | None
) -> tuple[int, list[str]]:
    """The index of the column with the addresses, and notices about other columns that contain addresses.

    It is the given column, else the likeliest by its name that contains an address in `samples`, the first cells of
    each column. A file without a header has empty names: then it is the only column with addresses. Raises FileError if
    the column does not exist, or cannot be told from others.
    """
    filled = {place for place, cells in enumerate(samples) if any(map(find_address, cells))}
    if column is not None:
        return _given(header, filled, str(column)), []
    if not any(map(str.strip, header)):
        return _only(header, sorted(filled)), []
    known = [place for place, cell in enumerate(header) if _squeezed(cell) in ADDRESS_NAMES]
    related = [place for place, cell in enumerate(header) if place not in known and _is_related(cell)]
    for candidates in (known, related):
        if found := [place for place in candidates if place in filled]:
            address = _likeliest(header, found)
            mentioned = [place for place, cell in enumerate(header) if place in filled and _mentions_address(cell)]
            _refuse_own_address(header, samples, address, sorted(filled), is_known=address in known)
            return address, _others(header, address, mentioned)
    if candidates := known or related:
        return _likeliest(header, candidates), []
    raise FileError(_none_found(header, samples, sorted(filled)))


def _given(header: Sequence[str], filled: set[int], column: str) -> int:
    found = get_columns(header, column)
    with_addresses = [place for place in found if place in filled]
    if len(found) > 1 and len(with_addresses) != 1:
        numbers = ", ".join(str(place + 1) for place in found)
        raise FileError(f"ambiguous column name ({numbers}): use its number with --column")
    return (with_addresses or found)[0]


def _only(header: Sequence[str], filled: Sequence[int]) -> int:
    if len(filled) == 1 or len(header) == 1:
        return filled[0] if filled else 0
    if not filled:
        raise FileError(f"no column contains addresses: specify it with --column ({list_columns(header)})")
    numbers = ", ".join(str(place + 1) for place in filled)
    raise FileError(f"columns {numbers} contain addresses: specify one of them with --column")


def _likeliest(header: Sequence[str], places: Sequence[int]) -> int:
    """The column with the likeliest name: a primary address, or the first of numbered columns."""
    if len(places) == 1:
        return places[0]
    primary = [place for place in places if _PRIMARY & set(header_words(header[place]))]
    if len(primary) == 1:
        return primary[0]
    without_numbers = {re.sub(r"\d+", "", _squeezed(header[place])) for place in places}
    if len(without_numbers) == 1 and len({_squeezed(header[place]) for place in places}) == len(places):
        return places[0]
    shown = ", ".join(f"{place + 1} {shown_column(header, place)}" for place in places[:10])
    raise FileError(f"columns {shown} may all be the address column: specify one of them with --column")


def _refuse_own_address(
    header: Sequence[str], samples: Sequence[Sequence[str]], address: int, filled: Sequence[int], *, is_known: bool
) -> None:
    """Refuse a column that has one address in all rows, if another column has several: it is the shop's own address.

    An export of payments has the addresses of the customer and of the shop. Of a single row, the columns cannot be told
    apart, unless the name `is_known`. Raises FileError.
    """
    found = {place: list(filter(None, map(find_address, samples[place]))) for place in filled}
    if len(set(found[address])) > 1:
        return
    is_single = len(found[address]) == 1
    for place in filled:
        is_other = _mentions_address(header[place]) and not _is_related(header[place])
        if (is_other and not is_known) if is_single else len(set(found[place])) > 1:
            shown = " and ".join(f"{each + 1} {shown_column(header, each)}" for each in sorted((address, place)))
            raise FileError(
                f"columns {shown} contain addresses, and column {address + 1} may be your own: specify one of them with"
                " --column"
            )


def _others(header: Sequence[str], address: int, filled: Sequence[int]) -> list[str]:
    others = [shown_column(header, place) for place in sorted(filled) if place != address]
    beginning = f"addresses were read from column {shown_column(header, address)}, and not from: "
    return [notice(beginning, others)] if others else []


def _none_found(header: Sequence[str], samples: Sequence[Sequence[str]], filled: Sequence[int]) -> str:
    """The error if no name is known."""
    if not filled and any(_are_codes([name, *cells]) for name, cells in zip(header, samples, strict=True)):
        return CODES
    columns = list_columns(header)
    hint = f"; column {filled[0] + 1} contains addresses" if len(filled) == 1 else ""
    return f"no column is named email; specify the address column with --column ({columns}{hint})"


def _are_codes(cells: Sequence[str]) -> bool:
    """Whether most cells of a column are one word of capitals or separators with digits, and no two are equal."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return len(set(filled)) == len(filled) and 2 * sum(map(bool, map(_CODE, filled))) > len(filled)


def is_address_name(cell: str) -> bool:
    """Whether a header names a column of addresses in one of the known languages."""
    return _squeezed(cell) in ADDRESS_NAMES


def _is_related(cell: str) -> bool:
    """Whether a name contains a word for an address, and none that makes it the name of another thing."""
    return _mentions_address(cell) and not _OTHER_THINGS & set(header_words(cell))


def _mentions_address(cell: str) -> bool:
    words = header_words(cell)
    pairs = {"".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, start + 4)}
    return bool(pairs & ADDRESS_NAMES)


def _squeezed(name: str) -> str:
    return "".join(header_words(name))


_PRIMARY = frozenset(
    header_words("primary main default haupt standard principal principale principale hoofd glowny primaria")
)
_OTHER_THINGS = frozenset(
    header_words("""
    type types typ tipo domain domains reason quarantine status state date time count number opt in out optin optout
    consent accepts accept permission subscribed unsubscribed unsubscribe subscription marketing bounce bounced bounces
    verified verification valid invalid client format language template subject body sent opened opens clicked clicks
    click open id hash md5 sha sha256 label preference preferences frequency source provider server owner sender from cc
    bcc display reply template legal basis last first owner agent
    domane grund datum anzahl einwilligung bestatigt abgemeldet newsletter herkunft absender betreff sprache
    domaine raison consentement inscrit expediteur objet langue
    dominio motivo fecha consentimiento suscrito remitente asunto idioma
    consenso iscritto mittente oggetto lingua
    toestemming reden afzender onderwerp taal
    zgoda powod nadawca temat jezyk
    samtycke samtykke avsandare afsender amne emne
    """)
)
ADDRESS_NAMES = frozenset(
    _squeezed(name)
    for name in """
    email|emails|e-mail|e-mails|mail|mails|email address|e-mail addresses|mail address|mail addresses|email addr
    emailaddr|email id|electronic mail|electronic mail address
    e-mail-adresse|email adressen|mailadresse|mailadressen|e-post|elektronische post|mail adr|email adr
    courriel|courriels|courrier electronique|adresse email|adresse e-mail|adresse mail|adresses mail|adresses email
    adresse electronique|adresse de courriel|adresse courriel|adresse de messagerie|mel|adresse de courrier electronique
    correo|correos|correo electronico|correo-e|direccion de correo|direccion de correo electronico|direccion email
    direccion de email|direccion e-mail|direccion electronica|e-correo
    posta elettronica|indirizzo email|indirizzo e-mail|indirizzo mail|indirizzo di posta elettronica|indirizzi email
    indirizzo posta elettronica|indirizzo elettronico|casella di posta|casella email
    correio eletronico|correio electronico|endereco de email|endereco email|endereco de e-mail|endereco eletronico
    endereco de correio eletronico|endereco de correio electronico|endereco electronico
    e-mailadres|emailadres|e-mail adres|mailadres|e-mailadressen|e-postadres|elektronisch adres
    adres e-mail|adres email|adres mailowy|adres poczty elektronicznej|poczta elektroniczna|poczta|adresy e-mail|mejl
    adres poczty|e-poczta
    e-post|epost|e-postadress|epostadress|e-postadresser|mejl|mejladress|mailadress|e-mailadress
    e-mailadresse|e-postadresse|epostadresse|mailadresse|e-mail adresser|elektronisk post
    sahkoposti|sahkopostiosoite|sahkopostit|sahkopostiosoitteet|meili
    emailova adresa|e-mailova adresa|mailova adresa|elektronicka posta|e-posta|adresa elektronicke posty|adresa email
    elektronicka adresa|adresa e-mail
    e-mail cim|email cim|elektronikus level|elektronikus posta|drotposta
    adresa de e-mail|adresa de email|posta electronica|adresa electronica
    elektronska posta|elektronicka posta|e-naslov|e-postni naslov|elektronski naslov|e-adresa|email adresa
    elektroninis pastas|el pastas|el pasto adresas|e-pasts|e-pasta adrese|meiliaadress|e-posti aadress
    eposta|e-posta adresi|eposta adresi|e-mail adresi|email adresi|elektronik posta|mail adresi
    netfang|rpost|r-phost|seoladh riomhphoist|ebost|posta elektronikoa|correu electronic|correo electronico|correu
    электронная почта|почта|электронный адрес|адрес электронной почты|эл почта|e-mail адрес|email адрес|имейл|емейл|мейл
    эл адрес|майл|емайл|электронная почта email
    електронна пошта|пошта|адреса електронної пошти|електронна адреса|електронна поща|имейл адрес|електронен адрес|поща
    електронска пошта|имејл
    ηλεκτρονικο ταχυδρομειο|ηλεκτρονικη διευθυνση|διευθυνση email|διευθυνση e-mail|ημειλ|ιμειλ|μειλ|e-mail διευθυνση
    διευθυνση ηλεκτρονικου ταχυδρομειου
    דואל|דואר אלקטרוני|כתובת דואל|אימייל|بريد إلكتروني|البريد الإلكتروني|بريد الكتروني|البريد الالكتروني
    ایمیل|پست الکترونیک|ईमेल|ईमेल पता
    メール|メールアドレス|eメール|電子メール|电子邮件|电子邮箱
    邮箱|邮件|电邮|電子郵件|電子信箱|信箱|電郵|邮箱地址|이메일|이메일 주소|전자우편
    อีเมล|email address 1|surel|alamat email|dia chi email|thu dien tu
    """.replace("\n", "|").split("|")
    if name.strip()
)  # fmt: skip
"""Names of a column of addresses, without blanks, punctuation and accents."""
