"""Writes the generated pages of docs/reference/: settings, the command line, and the JSON Schemas of the contract.

`make docs` runs this script. A test fails if a page differs from its output.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import click
from click.testing import CliRunner
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from coupons.commands import type_of
from coupons.settings import PREFIX, Settings, valid_values
from producers.cli import main

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"

INTRODUCTION = """# Settings

Written by `make docs` from `coupons/settings.py`. A setting is an environment variable, a line in a `.env` file in the
working folder, or a file in the folder `COUPONS_SECRETS_DIR`, where container engines can mount secrets. A file has the
name of the variable in lower case and contains the value. The environment has precedence over `.env`, and `.env` has
precedence over the folder.
"""
SECTIONS = {
    "activated": "Activation",
    "database_url": "Services",
    "default_from": "Sending",
    "smtp_connections": "SMTP connections",
    "import_folder": "Imports",
    "batch_size": "Workers",
    "log_format": "Logs and health checks",
    "web_host": "Web console and HTTP API",
}
"""The first setting of each section, and the section's heading."""
TABLE_HEAD = """
| Variable | Type | Default | Description |
| --- | --- | --- | --- |
"""
COMMAND_LINE = """# Command line

Written by `make docs`: the output of `--help` for each command.
"""
HELP_COLUMNS = 80
UNITS = ("bytes", "seconds", "hours", "days")
"""The last word of a setting's name, if that is the unit of its number."""


def settings_page() -> str:
    text = INTRODUCTION
    for name, setting in Settings.model_fields.items():
        if name in SECTIONS:
            text += f"\n## {SECTIONS[name]}\n{TABLE_HEAD}"
        cells = (f"`{PREFIX}{name.upper()}`", _type(name, setting), _default(name, setting), setting.description)
        text += f"| {' | '.join(map(str, cells))} |\n"
    return text


def _type(name: str, setting: FieldInfo) -> str:
    if name.endswith("_url"):
        return "URL"
    if get_origin(setting.annotation) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(setting.annotation))
    return valid_values(setting).removeprefix("an ").removeprefix("a ")


def _default(name: str, setting: FieldInfo) -> str:
    default = setting.default.get_secret_value() if isinstance(setting.default, SecretStr) else setting.default
    if default in ("", None):
        return "empty"
    value = json.dumps(default) if isinstance(default, bool) else default
    unit = name.rpartition("_")[2]
    return f"`{value}`" + (f" {unit.removesuffix('s') if value == 1 else unit}" if unit in UNITS else "")


def schemas() -> dict[str, str]:
    """Return the JSON Schemas of the commands by file name. They require `type` and `id`, which the models fill in."""
    files = {}
    for name, model in type_of.items():
        schema = model.model_json_schema()
        schema["required"] = ["type", "id", *schema.get("required", [])]
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["properties"]["id"].pop("default", None)
        files[f"{name}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return files


def command_line_page() -> str:
    """Return a page with the help of each command, as a terminal with HELP_COLUMNS columns shows it."""
    sections = (f"\n## {name}\n\n```text\n{text}```\n" for name, text in help_texts().items())
    return COMMAND_LINE + "".join(sections)


def help_texts() -> dict[str, str]:
    """Return the output of `--help` by command, such as `coupons list create`."""
    runner = CliRunner()
    return {
        " ".join(("coupons", *path)): runner.invoke(
            main, [*path, "--help"], prog_name="coupons", terminal_width=HELP_COLUMNS
        ).output
        for path in _commands(main, ())
    }


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from _commands(each, (*path, name))


def generated_files() -> dict[Path, str]:
    """Return the text of each file that this script writes."""
    contract = {REFERENCE / "contract" / name: text for name, text in schemas().items()}
    pages = {REFERENCE / "settings.md": settings_page(), REFERENCE / "command-line.md": command_line_page()}
    return pages | contract


if __name__ == "__main__":
    for path, text in generated_files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(DOCS.parent), file=sys.stderr)
