"""What is generated is what is committed."""

import re
import runpy
from pathlib import Path
from types import ModuleType

import pytest

from coupons.store import (
    deliveries,
    groups,
    imports,
    inbox,
    invariants,
    lists,
    lookup,
    messages,
    sendout_views,
    sendouts,
)

ROOT = Path(__file__).parents[2]
GENERATED: dict[Path, str] = runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated"]()
MODULES = (deliveries, groups, imports, inbox, lists, messages, sendout_views, lookup, sendouts)


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_settings_and_contract_are_those_of_the_models(path: Path) -> None:
    """`make docs` would change nothing."""
    assert path.read_text(encoding="utf-8") == GENERATED[path]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_each_statement_has_its_caller(module: ModuleType) -> None:
    """No block of a .sql file is unused, and none is missing."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "coupons").rglob("*.py")]
    own = Path(module.__file__ or "").read_text(encoding="utf-8")
    name = module.__name__.rpartition(".")[2]
    used = set(re.findall(r"(?<![\w.])SQL\.(\w+)", own))
    used |= {match for source in sources for match in re.findall(rf"\b{name}\.SQL\.(\w+)", source)}
    assert used == {block for block, _ in module.SQL}


def test_there_are_proofs() -> None:
    """`verify` proves something."""
    assert len(list(invariants.SQL)) >= 9
