"""Conditions that select the rows of a table, and a warning about columns that look like conditions.

    selection = Selection(file_format.where, header)  # raises FileError; the header is empty if the file has none
    rows = selection.select(rows)
    selection.notices

Both readers use a selection like this: `CodeReader` for the code rows, `RecipientReader` for the recipients.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from coupons.files.columns import get_columns, header_words
from coupons.files.converted import CONVERTED
from coupons.files.csv_rows import Rows
from coupons.files.decoding import FileError, OptionError

MAX_VALUES = 5
"""The values of a column with more of them are not counted."""
_MAX_NAME_CHARS = 60
_MAX_COLUMNS = 8  # that one file's notices describe


@dataclass(frozen=True, slots=True)
class Condition:
    """`Column=value`, or `Column!=value` if `negated`."""

    column: str
    value: str
    negated: bool

    def has_number(self, header: Sequence[str]) -> bool:
        """Whether the column is given by its number, which a file without names needs."""
        return re.fullmatch("[0-9]{1,9}", self.column) is not None and 1 <= int(self.column) <= len(header)


def parse_condition(text: str) -> Condition:
    """Parse `Column=value` or `Column!=value`. Raises FileError."""
    found = re.fullmatch(r"\s*(.*?[^\s!=])\s*(!?=)(?!=)(.*)", text, re.DOTALL)
    if not found:
        raise OptionError(f"--where {text[:50]!r} is not a condition: write COLUMN=VALUE or COLUMN!=VALUE")
    return Condition(found[1], comparable(found[3]), found[2] == "!=")


def comparable(value: str) -> str:
    """The form in which values are compared: without surrounding blanks and without regard to case."""
    return unicodedata.normalize("NFC", value.replace(CONVERTED, "")).strip().casefold()


class Selection:
    """Selects the rows for which all conditions of `where` hold. Without conditions, all rows are selected.

    Cells are compared without surrounding blanks and case. `excluded` counts the other rows. Raises FileError if a
    column does not exist or is ambiguous. If all names of `header` are empty, the columns have only numbers. No notice
    describes `subject`, the column of the codes or addresses.
    """

    def __init__(self, where: Sequence[str], header: Sequence[str], *, subject: int | None = None) -> None:
        self.excluded = 0
        conditions = list(map(parse_condition, where))
        has_names = any(map(str.strip, header))
        if not has_names and not all(each.has_number(header) for each in conditions):
            raise FileError(_no_header(len(header)))
        self._conditions = [(_get_column(header, each.column), each) for each in conditions]
        mentioned = {place for place, _ in self._conditions}
        self._tallies = [
            _Tally(" ".join(cell.split()), place)
            for place, cell in enumerate(header)
            if place != subject and place not in mentioned and looks_like_state(cell, header)
        ][:_MAX_COLUMNS]

    def select(self, rows: Rows) -> Rows:
        """The rows for which all conditions hold. The others count as blank."""
        if not rows.columns:
            return rows
        if self._conditions:
            rows = self._filtered(rows)
        for tally in self._tallies:
            tally.add(rows.columns[tally.place])
        return rows

    @property
    def notices(self) -> list[str]:
        """The number of rows that were not selected, and the columns that look like conditions."""
        excluded = f"{self.excluded:,} row{'' if self.excluded == 1 else 's'} did not match --where"
        tallies = [tally.notice for tally in self._tallies if tally.has_values]
        return [excluded] * bool(self._conditions) + tallies

    def _filtered(self, rows: Rows) -> Rows:
        selected = [True] * len(rows.lines)
        for place, condition in self._conditions:
            matches = [comparable(cell) == condition.value for cell in rows.columns[place]]
            selected = [kept and match != condition.negated for kept, match in zip(selected, matches, strict=True)]
        others = [not kept for kept in selected]
        self.excluded += sum(any(map(str.strip, row)) for row in compress(zip(*rows.columns, strict=True), others))
        return Rows(
            list(compress(rows.lines, selected)),
            [list(compress(column, selected)) for column in rows.columns],
            rows.rejected,
            rows.blank + sum(others),
        )


def looks_like_state(name: str, header: Sequence[str] = ()) -> bool:
    """Whether a column's name suggests that its values say which rows to import: consent, a state, or use.

    `State` is a part of an address if the header has other parts of one.
    """
    words = header_words(name)
    joined = {"".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, start + 4)}
    if joined & _STATE_WORDS or "".join(words) in _STATE_NAMES:
        return True
    return words == ["state"] and not any(_ADDRESS_WORDS & set(header_words(cell)) for cell in header)


def _no_header(width: int) -> str:
    needed = "--where needs a header line with the names of the columns, and the file has none"
    return f"{needed}: use numbers from 1 to {width}, such as --where {width}=VALUE" if width > 1 else needed


def _get_column(header: Sequence[str], name: str) -> int:
    found = get_columns(header, name)
    if len(found) > 1:
        raise FileError(f"--where: {len(found)} columns are named {name[:50]!r}: use a number, such as {found[0] + 1}")
    return found[0]


class _Tally:
    """Counts the values of a column until there are too many different ones."""

    def __init__(self, name: str, place: int) -> None:
        self.place = place
        self._name = name
        self._values: Counter[str] = Counter()

    def add(self, cells: Sequence[str]) -> None:
        if len(self._values) <= MAX_VALUES:
            self._values.update(cell.strip().removesuffix(CONVERTED) for cell in cells)

    @property
    def has_values(self) -> bool:
        return any(self._values)

    @property
    def notice(self) -> str:
        known = ", ".join(self._described()) if self._may_be_shown() else self._number_of_values()
        shown = f" ({known})" if known else ""
        column = self._name if len(self._name) <= _MAX_NAME_CHARS else str(self.place + 1)
        return (
            f'column {self._name[:_MAX_NAME_CHARS]!r}{shown} was not considered: --where "{column}=VALUE" selects rows'
        )

    def _may_be_shown(self) -> bool:
        """Whether all values are known words for a state. Any other value may name a person or be a code."""
        return len(self._values) <= MAX_VALUES and all(map(is_state_value, self._values))

    def _number_of_values(self) -> str:
        number = len(self._values)
        return "" if number > MAX_VALUES else f"{number} different value{'' if number == 1 else 's'}"

    def _described(self) -> list[str]:
        return [f"{value or 'empty'} {count:,}" for value, count in self._values.most_common()]


def is_state_value(value: str) -> bool:
    """Whether the value is empty or a word for a state, such as yes, 0, inactive, x. A notice may show it."""
    return value in _SIGNS or ("".join(header_words(value)) in _STATE_VALUES and re.search(r"\d", value) is None)


def _folded_words(text: str) -> frozenset[str]:
    return frozenset("".join(header_words(word)) for word in text.split())


_ADDRESS_WORDS = _folded_words("city town zip zipcode postcode postal country street address province")
_STATE_WORDS = _folded_words("""
    opt-in opt-out optin optout opted consent consented permission gdpr legal-basis accepts accepts-marketing
    marketing-allowed newsletter subscribed unsubscribed subscription subscriber-status subscribe unsubscribe bounced
    bounce blocked suppressed blacklisted blacklist quarantine complaint complained do-not-email do-not-contact
    do-not-mail no-mail blocklisted blocklist deactivated dnc deceased mailing-ok mail-ok may-contact cleaned
    email-valid email-verified status used is-used redeemed claimed redemptions times-used usage-count usage uses
    number-of-uses cashed consumed void voided canceled cancelled is-valid is-active assigned-to
    werbesperre kundenstatus verstorben darf-kontaktiert-werden mailing-erlaubt einlösungen storniert
    dsgvo einwilligung eingewilligt zustimmung zugestimmt werbeeinwilligung werbeerlaubnis abgemeldet angemeldet
    abbestellt gesperrt zustand eingelöst benutzt verwendet verbraucht vergeben zugewiesen
    rgpd consentement abonné abonnée désabonné désabonnée désinscrit désinscrite inscrit accepte désinscription statut
    état utilisé utilisée utilisés rebond bloqué
    consentimiento suscrito suscriptor baja acepta estado usado usada utilizado utilizada canjeado canjeada rebotado
    bloqueado
    consenso iscritto disiscritto accetta stato usato usata utilizzato utilizzata riscattato riscattata bloccato
    consentimento inscrito subscrito descadastrado aceita resgatado resgatada estado utilizado situação
    toestemming ingeschreven uitgeschreven afgemeld aangemeld gebruikt ingewisseld verzilverd geblokkeerd
    zgoda zgody wypisany subskrypcja stan użyty użyte wykorzystany wykorzystane zrealizowany zablokowany
    samtycke avregistrerad prenumererar använd inlöst spärrad
    samtykke afmeldt tilmeldt brugt indløst afmelding spærret
    brukt innløst avmeldt påmeldt
    suostumus tila käytetty lunastettu
    souhlas odhlášen stav použitý použito uplatněno uplatněný
    hozzájárulás állapot felhasznált beváltott leiratkozott
    consimțământ stare folosit utilizat
    izin onay durum kullanildi kullanilmis
    согласие подписан отписан подписка статус состояние использован использовано погашен
    згода стан використано
    συγκαταθεση κατασταση χρησιμοποιημενο εξαργυρωθηκε
    同意 状态 状態 已使用 使用済み
""")
_STATE_NAMES = _folded_words("""
    active inactive enabled disabled valid invalid expired deleted sent sold issued available assigned
    order-id order-number bestellnummer
    aktiv inaktiv gültig ungültig abgelaufen gelöscht versendet verkauft verfügbar
    actif inactif valide expiré supprimé envoyé disponible
    activo inactivo válido caducado enviado attivo valido scaduto inviato disponibile
    ativo inativo disponível actief geldig verlopen verzonden beschikbaar
    aktywny aktywna ważny wygasły wysłany dostępny giltig gyldig
    активен активный действителен отправлен
""")
_SIGNS = frozenset(["", "0", "1", "-", "+", "x", "X", "\u2713", "\u2714", "\u2717", "\u2718", "\u2611", "\u2610"])
_STATE_VALUES = (
    _STATE_WORDS
    | _STATE_NAMES
    | _folded_words("""
    yes no y n true false t f on off none null empty new old open closed pending confirmed unconfirmed accepted declined
    granted denied unused not-used unredeemed in-use opted-in opted-out not-subscribed non-subscribed cleaned archived
    paused live draft free taken reserved activated deactivated refunded cancelled canceled completed done hard soft
    verified unverified single double explicit implicit never gone dead allowed
    ja nein j wahr falsch an aus neu alt offen frei geschlossen bestätigt unbestätigt ausstehend unbenutzt ungenutzt
    genutzt unverwendet offen nicht-verwendet nicht-eingelöst reserviert storniert erledigt eingetragen ausgetragen
    erteilt widerrufen verweigert deaktiviert aktiviert
    oui non o vrai faux nouveau ouvert fermé confirmé inutilisé non-utilisé libre réservé annulé utilisées utilisés
    si verdadero falso nuevo abierto cerrado confirmado pendiente sin-usar no-usado libre reservado cancelado
    vero falso nuovo aperto chiuso confermato inutilizzato non-usato non-utilizzato libero riservato annullato
    sim não verdadeiro novo aberto fechado pendente não-usado não-utilizado livre não-resgatado
    nee waar onwaar nieuw open gesloten bevestigd ongebruikt niet-gebruikt vrij gereserveerd geannuleerd ongeldig
    inactief
    tak nie prawda fałsz nowy nowa otwarty zamknięty potwierdzony nieużyty nieużyte niewykorzystany wolny nieaktywny
    nieważny zarezerwowany anulowany
    nej sant falskt falsk ny öppen stängd bekräftad oanvänd ej-använd ledig reserverad ogiltig avslutad
    sand åben lukket bekræftet ubrugt ikke-brugt ledig reserveret ugyldig inaktivt aktivt
    kyllä ei tosi epätosi ano ne igen nem da nu evet hayir да нет так ні \u03bd\u03b1\u03b9 οχι はい いいえ 是 否
    """)
)
