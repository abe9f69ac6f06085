"""Writes the generated pages of docs/reference/: settings and the JSON Schemas of the contract, from the models.

`make docs` runs it; a test fails if a page differs from what it would write.
"""

import json
import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from coupons.commands import type_of
from coupons.settings import PREFIX, Settings

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"
HEAD = """# Settings

Made by `make docs` from `coupons/settings.py`. Each is an environment variable, a line in a `.env` file in the working
folder, or a file in the folder that `COUPONS_SECRETS_DIR` names (one file a setting, called like the variable in lower
case).

| variable | default | what it is |
| --- | --- | --- |
"""


def settings_table() -> str:
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    return HEAD + "".join(rows)


def _default(field: FieldInfo) -> str:
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return f"`{default}`" if default not in ("", None) else "–"  # noqa: RUF001 - a dash, in prose


def schemas() -> dict[str, str]:
    """File name → JSON Schema of one command, as publishers in any language need it: `type` and `id` are required."""
    files = {}
    for name, model in type_of.items():
        schema = model.model_json_schema()
        schema["required"] = ["type", "id", *(each for each in schema.get("required", []))]
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["properties"]["id"].pop("default", None)
        files[f"{name}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return files


def generated() -> dict[Path, str]:
    """Everything that this script writes."""
    contract = {REFERENCE / "contract" / name: text for name, text in schemas().items()}
    return {REFERENCE / "settings.md": settings_table(), **contract}


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(DOCS.parent), file=sys.stderr)
