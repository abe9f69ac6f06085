"""Replaces the options of the command line in a text by the fields of the console's forms."""

import re

LABELS = {
    "--encoding": "Encoding",
    "--force-encoding": "Use the encoding although the file is valid UTF-8",
    "--separator": "Separator",
    "--header": "First line: header row",
    "--no-header": "First line: first code or recipient",
    "--column": "Code column or Address column",
    "--columns": "Only these columns",
    "--sheet": "Sheet of a spreadsheet",
    "--skip-lines": "Lines to skip at the beginning",
    "--where": "Only rows with",
    "--allow-lookalikes": "Accept codes that mix scripts",
    "--allow-empty": "Replace even if no line is accepted",
    "--yes": "Import even if",
    "--mode": "Mode",
}
"""The first words of each field's label."""

_IN_JSON = re.compile(r' \((?:allow_empty|confirmed|in JSON: "confirmed": true)\)')
_EITHER_HEADER = re.compile(r"--header or --no-header|--header/--no-header")
_WHERE = re.compile(r'--where "([^"]+)"')
_OPTION = re.compile(r"(?<![\w-])(--[a-z]+(?:-[a-z]+)*)(?: N\b)?")


def for_console(text: str) -> str:
    """Return the text with the fields of the console's forms instead of the options of the command line."""
    text = _IN_JSON.sub("", text).replace("confirm with --yes", "confirm it")
    text = _EITHER_HEADER.sub("the field “First line”", text)
    text = _WHERE.sub(r"“\1” in the field “Only rows with”", text)
    return _OPTION.sub(lambda option: _field(option[0], option[1]), text)


def _field(text: str, option: str) -> str:
    return f"the field “{LABELS[option]}”" if option in LABELS else text
