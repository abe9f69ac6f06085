"""An operator at a terminal confirms only numbers that the question shows."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coupons.errors import Conflict
from coupons.files.format import FileFormat
from coupons.states import ImportMode
from coupons.store.import_chunks import ImportCounts
from producers.cli import dry_run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions to an operator, who answers y to each of them."""
    questions: list[str] = []
    monkeypatch.setattr(dry_run, "is_asked", lambda **_: True)
    monkeypatch.setattr(dry_run, "confirm", questions.append)
    return questions


async def review(file: Any) -> bool:
    return await dry_run.review_import(
        file, list_="a", group=None, mode=ImportMode.REPLACE, format_=FileFormat(), allow_empty=False
    )


async def test_unknown_numbers_are_not_confirmed(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The worker checks the numbers of a pipe, although an operator has answered y."""
    out, in_ = os.pipe()
    os.close(in_)
    with os.fdopen(out, "rb") as pipe:
        assert await review(pipe) is False
    assert asked == ["Replace the available codes of list a?"]
    assert "a worker checks them before anything is changed" in capsys.readouterr().err


@pytest.mark.parametrize(("rejected", "is_shown"), [(50, False), (60, True)])
async def test_the_question_says_that_most_lines_are_rejected(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rejected: int, is_shown: bool
) -> None:
    """The answer y is then a confirmation of this number. Without a terminal, the import is refused."""

    @asynccontextmanager
    async def report(*_: object, **__: object) -> AsyncIterator[object]:
        counts = ImportCounts(100 - rejected, 0, 0, {"too_long": rejected})
        yield SimpleNamespace(lines=103, blank=3, counts=counts, read_as="txt", notices=[])

    monkeypatch.setattr(dry_run, "_dry_run", report)
    path = tmp_path / "codes.txt"
    path.touch()
    with path.open("rb") as file:
        assert await review(file) is True
        question = "Replace the available codes of list a?"
        assert asked == [f"60 of 100 lines would be rejected. {question}" if is_shown else question]
        monkeypatch.setattr(dry_run, "is_asked", lambda **_: False)
        if is_shown:
            with pytest.raises(Conflict, match="more than half"):
                await review(file)
