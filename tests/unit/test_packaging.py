"""The files that install and run the project are consistent."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.services import POSTGRES_IMAGE, RABBITMQ_IMAGE

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNS = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["demo"]]
LOCKS = {"requirements.lock": RUNS, "requirements-dev.lock": [*RUNS, *PROJECT["dependency-groups"]["dev"]]}
OWN = ("coupons", "producers", "sandbox", "workers")
INDIRECT = {"pydantic-core", "pamqp"}  # part of the interfaces of pydantic and aio-pika, which pin them
COMPOSE = (ROOT / "docker-compose.yml").read_text()


def pins(lock: str) -> dict[str, Requirement]:
    lines = (ROOT / lock).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def imported(package: str) -> set[str]:
    """The top-level names that a package's files import, inside functions too."""
    names: set[str] = set()
    for file in ROOT.joinpath(package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            match node:
                case ast.Import():
                    names |= {alias.name for alias in node.names}
                case ast.ImportFrom(module=str(module), level=0):
                    names.add(module)
    return {name.partition(".")[0] for name in names}


def test_each_import_is_a_declared_dependency() -> None:
    """The project runs with only its declared dependencies installed."""
    foreign = set().union(*map(imported, OWN)) - {*OWN, *sys.stdlib_module_names}
    distributions = packages_distributions()
    used = {canonicalize_name(distributions.get(name, [name])[0]) for name in foreign}
    assert not used - INDIRECT - {canonicalize_name(Requirement(each).name) for each in RUNS}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_each_dependency(lock: str) -> None:
    """Each dependency of pyproject.toml has one exact version in the lock, within its range."""
    pinned = pins(lock)
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pinned.values())
    for wanted in map(Requirement, LOCKS[lock]):
        [version] = pinned[canonicalize_name(wanted.name)].specifier
        assert wanted.specifier.contains(version.version), wanted


def test_developers_run_the_versions_that_users_run() -> None:
    """Every pin of requirements.lock is also in requirements-dev.lock."""
    users, developers = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: str(pin.specifier) for name, pin in users.items()}.items() <= {
        name: str(pin.specifier) for name, pin in developers.items()
    }.items()


def test_tests_and_compose_use_the_same_servers() -> None:
    """The images of the tests' containers are those of docker-compose.yml."""
    assert {POSTGRES_IMAGE, RABBITMQ_IMAGE} <= set(re.findall(r"image: (\S+)", COMPOSE))


def test_compose_publishes_on_loopback_only() -> None:
    """The default passwords are public, so ports that Docker opens must not be reachable from other machines."""
    published = re.findall(r'"([^"\s]*:\d+)"', COMPOSE)
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)
