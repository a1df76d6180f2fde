"""Whether the schema of gateway.toml takes every file that is shipped, and refuses mistakes: check_schema.py SCHEMA"""

import json
import re
import sys
import tomllib
from pathlib import Path

from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]

WRONG = {
    "an unknown key": {"gateway": {"worker": 1}},
    "a duration without a unit": {"defaults": {"timeouts": {"close": "10"}}},
    "a size in other units": {"defaults": {"limits": {"pace": "1kb"}}},
    "a close code that is never sent": {"gateway": {"drain": {"code": 1006}}},
    "a word that is not known": {"defaults": {"pings": "drop"}},
    "a number for a text": {"listener": [{"address": 8080}]},
}


def uncommented(text: str) -> str:
    """The shipped file with each of its defaults switched on."""
    return re.sub(r"^#(?=[a-z])", "", text, flags=re.MULTILINE)


def files() -> dict[str, str]:
    shipped = (ROOT / "gateway.toml").read_text()
    found = {"gateway.toml": shipped, "gateway.toml, uncommented": uncommented(shipped)}
    for path in ROOT.glob("examples/**/*.toml"):
        found[str(path.relative_to(ROOT))] = path.read_text()
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/deploy/kubernetes/*.yaml")]:
        for number, block in enumerate(blocks(path)):
            found[f"{path.relative_to(ROOT)}, block {number + 1}"] = block
    return found


def blocks(path: Path) -> list[str]:
    """The configurations that stand in a document, whole ones alone."""
    text = path.read_text()
    if path.suffix == ".yaml":
        found = re.findall(r"^  gateway\.toml: \|\n((?:    .*\n|\n)+)", text, flags=re.MULTILINE)
    else:
        found = re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [block for block in found if "[[listener]]" in block or "listener = " in block]


def main() -> int:
    schema = json.loads(Path(sys.argv[1]).read_text())
    Draft202012Validator.check_schema(schema)
    validator, failures = Draft202012Validator(schema), []
    checked = files()
    for name, text in checked.items():
        config = tomllib.loads(text)
        for error in validator.iter_errors(config):
            failures.append(f"{name}: {'.'.join(map(str, error.absolute_path))}: {error.message}")
    for name, mistake in WRONG.items():
        whole = {"listener": [{"address": "[::]:1"}], "route": [{"upstream": "a"}], "upstream": {"a": {"servers": ["ws://a"]}}}
        if validator.is_valid(whole | mistake) or not validator.is_valid(whole):
            failures.append(f"{name} is not refused")
    print("\n".join(failures) or f"schema: {len(checked)} configurations pass, {len(WRONG)} mistakes do not")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
