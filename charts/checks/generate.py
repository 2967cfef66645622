"""What in the chart is made from elsewhere: the schema of the configuration, the list of alerts, the README.

    generate.py PROGRAM       PROGRAM is pointsman
"""

import json
import re
import subprocess
import sys

from harness import CHART

SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"


def schema(program):
    """values.schema.json with the schema of the configuration that the program has."""
    document = json.loads(SCHEMA.read_text())
    text = subprocess.run([program, "config", "schema"], capture_output=True, text=True, check=True).stdout
    config = json.loads(text)
    for name in ("$schema", "title"):
        config.pop(name, None)
    document["properties"]["config"] = config
    alerts = sorted(path.stem for path in (CHART / "files" / "alerts").glob("*.yaml"))
    rules = document["properties"]["metrics"]["properties"]["rules"]["properties"]
    rules["excludeRules"] = {"type": "array", "items": {"enum": alerts}}
    return json.dumps(document, indent=1) + "\n"


def readme():
    """README.md: its text as it is, and the table of values.yaml."""
    text = README.read_text()
    head, _, rest = text.partition("<!-- values -->\n")
    _, _, tail = rest.partition("<!-- end of values -->\n")
    return f"{head}<!-- values -->\n{table()}<!-- end of values -->\n{tail}"


def table():
    rows = ["| value | default | |", "|---|---|---|"]
    path, comment = [], []
    lines = (CHART / "values.yaml").read_text().splitlines()
    for at, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped[5:]]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped[2:])
        else:
            found = re.match(r"^( *)([A-Za-z0-9_]+):(.*)$", line)
            if found:
                depth = len(found[1]) // 2
                path = [*path[:depth], found[2]]
                if comment:
                    name = ".".join(path)
                    rows.append(f"| `{name}` | {default(found[3].strip(), lines, at, depth)} | {' '.join(comment)} |")
            comment = []
    return "\n".join(rows) + "\n"


def default(value, lines, at, depth):
    if value:
        return f"`{value}`"
    below = lines[at + 1 :]
    own = next((i for i, line in enumerate(below) if line.strip() and len(line) - len(line.lstrip()) <= depth * 2), len(below))
    # A value with parts that are described themselves has no default of its own.
    return "" if any("# -- " in line for line in below[:own]) else "see values.yaml"


def stale(program):
    return [path.name for path, text in ((SCHEMA, schema(program)), (README, readme())) if path.read_text() != text]


def check(results, program):
    results.check("what is generated is up to date", fresh, program)


def fresh(program):
    names = stale(program)
    if names:
        raise AssertionError(f"{', '.join(names)} of charts/pointsman: run scripts/chart generate")


if __name__ == "__main__":
    SCHEMA.write_text(schema(sys.argv[1]))
    README.write_text(readme())
