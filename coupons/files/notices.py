"""Notices: plain sentences about what a reader assumed, skipped or changed. They contain no code and no address."""

MAX_NOTICES = 30
MAX_NOTICE_CHARS = 300
MAX_NAME_CHARS = 50


def limit_notices(notices: list[str]) -> list[str]:
    """The notices that are stored and shown: not more and not longer than the limits. The last one counts the rest."""
    shown = notices
    if len(notices) > MAX_NOTICES:
        shown = [*notices[: MAX_NOTICES - 1], f"… and {len(notices) - MAX_NOTICES + 1:,} more notices"]
    return [each if len(each) <= MAX_NOTICE_CHARS else each[: MAX_NOTICE_CHARS - 1] + "…" for each in shown]


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def quoted_name(name: str) -> str:
    """The name of a column as a notice shows it."""
    shown = " ".join("".join(each if each.isprintable() else " " for each in name).split())
    return f"'{shown if len(shown) <= MAX_NAME_CHARS else shown[: MAX_NAME_CHARS - 1] + '…'}'"


def mask(code: str) -> str:
    """The code with its separators and at most its first three characters: `SPR-••••`."""
    letters = sum(map(str.isalnum, code))
    shown = min(3, letters // 2)
    masked: list[str] = []
    for character in code[:30]:
        shown -= character.isalnum()
        masked.append(character if not character.isalnum() or shown >= 0 else "•")
    return "".join(masked) + "…" * (len(code) > 30)
