"""What all checks of the chart share: running Helm, reading what it wrote, counting what passed."""

import os
import pathlib
import subprocess
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parent.parent / "pointsman"
TOOLS = pathlib.Path(os.environ["POINTSMAN_CHART_TOOLS"])
HELMS = {"Helm 3": TOOLS / "helm3", "Helm 4": TOOLS / "helm4"}
# The oldest Kubernetes that the chart allows, and the newest whose schemas are at hand.
KUBERNETES = ["1.25", "1.37"]
VALUE_FILES = sorted((CHART / "ci").glob("*-values.yaml"))
TIMEOUT_SECONDS = 120


class Results:
    """Counts checks; one that raises has failed."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, name, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:  # whatever goes wrong in a check is the check's failure
            self.failed += 1
            text = str(error) or type(error).__name__
            print(f"FAILED: {name}: {text}", flush=True)
        else:
            self.passed += 1

    def conclude(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(0 if self.passed and not self.failed else 1)


def run(*command, environment=None, text=None):
    """Runs a program; its standard output, or an error with what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def environment():
    """Ours, without what would change how Helm or Pointsman behaves."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE", "POINTSMAN_"))}
    # No cluster: what is rendered must not depend on one that happens to be reachable.
    return kept | {"KUBECONFIG": "/dev/null"}


def template(helm, *values, sets=(), kubernetes=KUBERNETES[-1], more=()):
    """The text that Helm renders of the chart."""
    arguments = [part for file in values for part in ("--values", file)]
    arguments += [part for assignment in sets for part in ("--set", assignment)]
    command = [HELMS[helm], "template", "shop", CHART, "--namespace", "databases"]
    return run(*command, "--kube-version", kubernetes, *arguments, *more, environment=environment())


def documents(text):
    """The objects of a rendered text."""
    return [document for document in yaml.safe_load_all(text) if document]


def find(objects, kind, name):
    """The one object of that kind and name."""
    found = [thing for thing in objects if thing["kind"] == kind and thing["metadata"]["name"] == name]
    if len(found) != 1:
        names = sorted(f"{thing['kind']} {thing['metadata']['name']}" for thing in objects)
        raise AssertionError(f"expected one {kind} {name}, got {len(found)} among {', '.join(names)}")
    return found[0]


def kinds(objects):
    return {thing["kind"] for thing in objects}


def equal(actual, expected):
    if actual != expected:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")
