"""The list of mutants matches the code. `make mutants` takes minutes; these tests find a stale patch at once."""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from tests.mutants import constraints
from tests.mutants.mutant import Mutant, patches

ROOT = Path(__file__).parents[2]
PATCHES = patches()


@pytest.mark.parametrize("mutant", PATCHES, ids=lambda mutant: mutant.name)
def test_a_patch_applies(mutant: Mutant) -> None:
    """The text that a patch replaces occurs exactly once, and the patch changes it."""
    path = ROOT / mutant.file.partition("#")[0]
    assert mutant.changed(ROOT) != path.read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", PATCHES, ids=lambda mutant: mutant.name)
def test_tests_of_a_patch_exist(mutant: Mutant) -> None:
    """Each patch names at least one test, and every test that it names exists."""
    assert mutant.tests
    assert missing(mutant.tests) == []


def test_tests_of_constraints_exist() -> None:
    """The mutants that drop constraints of the database run a test that exists."""
    assert missing([constraints.REFUSALS]) == []


def test_names_of_patches_are_unique() -> None:
    """A name selects exactly one mutant."""
    names = [mutant.name for mutant in PATCHES]
    assert len(set(names)) == len(names)


def missing(arguments: Iterable[str]) -> list[str]:
    """The arguments of pytest that look like test ids and name no test."""
    return [each for each in arguments if each.startswith("tests/") and not exists(each)]


def exists(test_id: str) -> bool:
    path, *names = re.sub(r"\[.*\]$", "", test_id).split("::")
    file = ROOT / path
    return file.exists() and (not names or names[-1] in functions(file))


@cache
def functions(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
