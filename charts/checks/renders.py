"""The matrix of value files: lint, both Helms, schemas, and the configuration that comes out."""

import json
import pathlib
import subprocess
import tempfile

import kubernetes_validate

from harness import CHART, HELMS, KUBERNETES, TIMEOUT_SECONDS, TOOLS, VALUE_FILES, documents, environment, run, template

LEAST_VALUE_FILES = 20
MONITORING = "monitoring.coreos.com/v1"


def lint(helm, file):
    command = [HELMS[helm], "lint", "--strict", CHART, "--kube-version", KUBERNETES[0], "--values", file]
    run(*command, environment=environment())


def same(file):
    """Both Helms mean the same objects; blank lines and order may differ."""
    rendered = [sorted(documents(template(helm, file)), key=lambda thing: json.dumps(thing)) for helm in HELMS]
    if rendered[0] != rendered[1]:
        raise AssertionError("the two Helms render different objects")


def valid(file, version):
    """Every object keeps the strict schema of that Kubernetes; those of the operator have their own."""
    for thing in documents(template("Helm 4", file, kubernetes=version)):
        if thing["apiVersion"] != MONITORING:
            kubernetes_validate.validate(thing, version, strict=True)


def valid_for_operator(objects):
    """Objects of the Prometheus operator keep its schemas; one process for all, since node starts slowly."""
    script = pathlib.Path(__file__).parent / "operator.mjs"
    done = subprocess.run(
        ["node", str(script), str(TOOLS)],
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)


def protocols_are_named(file):
    """Ports are merged by protocol: without it, server-side apply fails on API servers that do not fill it in."""
    for thing in documents(template("Helm 4", file)):
        for path, port in ports(thing, thing["kind"]):
            if port.get("protocol") not in ("TCP", "UDP"):
                raise AssertionError(f"{path}: no protocol")


def ports(value, path):
    if isinstance(value, dict):
        for key, below in value.items():
            if key == "ports" and isinstance(below, list):
                yield from ((f"{path}.{key}", port) for port in below)
            else:
                yield from ports(below, f"{path}.{key}")
    elif isinstance(value, list):
        for at, below in enumerate(value):
            yield from ports(below, f"{path}[{at}]")


def accepted(file, program):
    """The program accepts each configuration that the chart makes of these values."""
    found = 0
    for thing in documents(template("Helm 4", file)):
        text = {**thing.get("data", {}), **thing.get("stringData", {})}.get("pointsman.json")
        if thing["kind"] not in ("ConfigMap", "Secret") or text is None or "dashboard" in thing["metadata"]["name"]:
            continue
        found += 1
        with tempfile.TemporaryDirectory() as directory:
            config = pathlib.Path(directory) / "pointsman.json"
            config.write_text(text)
            run(program, "config", "check", "--config", config, environment=environment())
    if found == 0:
        raise AssertionError("no pointsman.json was rendered")


def check(results, program):
    if len(VALUE_FILES) < LEAST_VALUE_FILES:
        raise SystemExit(f"expected {LEAST_VALUE_FILES} value files, found {len(VALUE_FILES)}")
    monitoring = []
    for file in VALUE_FILES:
        for helm in HELMS:
            results.check(f"{helm} lints {file.name}", lint, helm, file)
        results.check(f"both Helms render the same of {file.name}", same, file)
        for version in KUBERNETES:
            results.check(f"Kubernetes {version} knows all of {file.name}", valid, file, version)
        results.check(f"ports of {file.name} name their protocol", protocols_are_named, file)
        results.check(f"pointsman accepts the configuration of {file.name}", accepted, file, program)
        monitoring += [thing for thing in documents(template("Helm 4", file)) if thing["apiVersion"] == MONITORING]
    kinds = {thing["kind"] for thing in monitoring}
    if kinds != {"PodMonitor", "ServiceMonitor", "PrometheusRule"}:
        raise SystemExit(f"expected objects of all the operator's kinds, got {kinds}")
    results.check("the Prometheus operator knows all its objects", valid_for_operator, monitoring)
    # A check that accepts anything would pass, too.
    wrong = [{**thing, "spec": {"groups": "none"}} for thing in monitoring if thing["kind"] == "PrometheusRule"][:1]
    results.check("the operator's schema refuses what is wrong", must_fail, valid_for_operator, wrong)
    results.check("the schema of Kubernetes refuses what is wrong", must_fail, misspelt)


def must_fail(function, *arguments):
    try:
        function(*arguments)
    except Exception:  # any refusal will do
        return
    raise AssertionError("expected a refusal")


def misspelt():
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"}}
    kubernetes_validate.validate({**budget, "spec": {"maxUnavailible": 1}}, KUBERNETES[0], strict=True)
