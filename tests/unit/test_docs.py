"""The generated documents are up to date, and each SQL block has a caller."""

import importlib
import re
import runpy
from pathlib import Path

import pytest

from coupons import migrate
from coupons.settings import Settings
from coupons.store import invariants
from coupons.store.queries import Queries

ROOT = Path(__file__).parents[2]
GENERATOR = runpy.run_path(str(ROOT / "docs" / "generate.py"))
GENERATED: dict[Path, str] = GENERATOR["generated_files"]()
MODULES = sorted(path.stem for path in (ROOT / "coupons" / "store").glob("*.sql") if path.stem != "invariants")
"""`verify` runs all blocks of invariants.sql, so no code calls one of them by name."""


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_pages_match_the_code(path: Path) -> None:
    """The generated pages are up to date: `make docs` would not change them."""
    assert path.read_text(encoding="utf-8") == GENERATED[path]


def test_each_setting_is_in_a_section() -> None:
    """The settings page begins with a heading, and each of its headings belongs to a setting that exists."""
    names = list(Settings.model_fields)
    first, *others = GENERATOR["SECTIONS"]
    assert first == names[0]
    assert set(others) < set(names)


@pytest.mark.parametrize("name", MODULES)
def test_each_statement_has_its_caller(name: str) -> None:
    """Each block of a .sql file is used by the code, and each used block exists."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "coupons").rglob("*.py")]
    own = (ROOT / "coupons" / "store" / f"{name}.py").read_text(encoding="utf-8")
    used = set(re.findall(r"(?<![\w.])SQL\.(\w+)", own))
    used |= {match for source in sources for match in re.findall(rf"\b{name}\.SQL\.(\w+)", source)}
    sql: Queries = importlib.import_module(f"coupons.store.{name}").SQL
    assert used == {block for block, _ in sql}


def test_verify_checks_invariants() -> None:
    """`verify` checks at least nine invariants."""
    assert len(list(invariants.SQL)) >= 9


def test_roles_and_migrations_take_the_same_lock() -> None:
    """Migrations and roles.sql take the same advisory lock, so they never run at the same time."""
    roles = (ROOT / "docs" / "reference" / "roles.sql").read_text(encoding="utf-8")
    assert f"pg_advisory_xact_lock({migrate.ADVISORY_LOCK})" in roles
