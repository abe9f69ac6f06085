"""Whether a text is a word of a language, judged by the pairs of its letters.

The pairs are counted in the names of columns in ten languages (`header_names`), and in some other words of exports.
Random letters have other pairs: nine of ten words are likelier than 98 % of random letters.
"""

from collections import Counter
from functools import cache
from itertools import pairwise
from math import log, sqrt
from statistics import NormalDist

from coupons.files.header_names import known_words

_SMOOTHING = 0.3
_MEAN, _DEVIATION = -0.95, 1.38  # of the pairs of 6 to 8 random letters
_MIN_CHANCE = 1e-6
_OTHERS = """
    password passwort passwd username account member members invoice receipt reference column field fields text value
    values data output input result results suffix prefix pool hash label labels secret ticket item items entry entries
    batch series barcode winner prize friends partner influencer newsletter teilnehmer mitglied zugang losnr kennwort
    heslo haslo column losnummer vertrag beleg bestellung artikel eintritt abschnitt bestand vorrat contrasena senha
    parola lozinka salasana wachtwoord losenord referentie reference numero biglietto compte membre utilisateur usuario
    cuenta socio utente conto gebruiker rekening uzytkownik konto anvandare bruger medlem kunden freunde sommer winter
    summer spring autumn herbst fruhling welcome willkommen premium angebot spar merch string varchar content unused
"""
"""Other words that exports have in a first line."""


def is_word(text: str, chance: float) -> bool:
    """Whether the letters form a word: random letters have a likelihood as high as theirs in `chance` of all cases."""
    if text.casefold() in _known():
        return True
    score, pairs = _score(text.casefold())
    level = NormalDist().inv_cdf(1 - min(max(chance, _MIN_CHANCE), 0.5))
    return score > _MEAN * pairs + level * _DEVIATION * sqrt(pairs)


def _score(text: str) -> tuple[float, int]:
    """The logarithm of how much likelier the pairs are in a word than in random letters, and their number."""
    counts, firsts = _pairs()
    letters = "".join(each for each in text if "a" <= each <= "z")
    pairs = list(pairwise(f"^{letters}$"))
    score = sum(
        log(26 * (counts[first + second] + _SMOOTHING) / (firsts[first] + 27 * _SMOOTHING)) for first, second in pairs
    )
    return score, len(pairs)


@cache
def _known() -> frozenset[str]:
    return frozenset([*known_words(), *_OTHERS.split()])


@cache
def _pairs() -> tuple[Counter[str], Counter[str]]:
    counts = Counter(first + second for word in _known() for first, second in pairwise(f"^{word}$"))
    firsts: Counter[str] = Counter()
    for pair, count in counts.items():
        firsts[pair[0]] += count
    return counts, firsts
