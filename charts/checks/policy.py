"""Security policies: the rules of checkov, less those that are decided otherwise here, each with the reason."""

import json
import os
import pathlib
import tempfile

from harness import CHART, TOOLS, environment, run, template

# What is not followed, and why.
SKIPPED = {
    "CKV_K8S_11": "no CPU limit: throttling a proxy delays every statement; the request is what is planned with",
    "CKV_K8S_14": "the tag is the version of the chart; image.digest fixes the image",
    "CKV_K8S_43": "as CKV_K8S_14: a digest is the user's choice",
    "CKV_K8S_15": "IfNotPresent: tags of releases are not moved",
    "CKV_K8S_21": "the namespace is the user's choice; the default one is not used in the checks",
    "CKV_K8S_38": "the token is mounted only where the Lease of the API is used",
    "CKV_K8S_35": "secrets are files already; this rule misreads volumes",
    "CKV2_K8S_6": "a NetworkPolicy is the user's choice (networkPolicy.enabled): without knowing the clients it shuts them out",
}
# A test runs once and ends.
SKIPPED_FOR_TESTS = {
    "CKV_K8S_8": "nothing restarts a test",
    "CKV_K8S_9": "nothing is sent to a test",
}
# Directors own the node's network: that is what they are for.
SKIPPED_FOR_DIRECTORS = {
    "CKV_K8S_19": "the node's network holds the virtual address",
    "CKV_K8S_26": "a port of the node for health and metrics",
    "CKV_K8S_23": "capabilities of other users are lost on exec",
    "CKV_K8S_40": "as CKV_K8S_23",
    "CKV_K8S_6": "as CKV_K8S_23",
    "CKV_K8S_28": "NET_RAW announces the virtual address",
    "CKV_K8S_25": "NET_ADMIN changes the kernel's IPVS tables",
    "CKV_K8S_37": "as CKV_K8S_25",
    "CKV_K8S_39": "as CKV_K8S_25",
}


def failures(file):
    """Rule and object of each finding of checkov."""
    with tempfile.TemporaryDirectory() as directory:
        rendered = pathlib.Path(directory) / "rendered.yaml"
        rendered.write_text(template("Helm 4", CHART / "ci" / file))
        command = [TOOLS / "python" / "bin" / "checkov", "--file", rendered, "--framework", "kubernetes"]
        # Nothing is asked of the network, and nothing sent.
        options = ["--skip-download", "--output", "json", "--compact", "--quiet", "--soft-fail"]
        text = run(*command, *options, environment=environment() | {"PATH": os.environ["PATH"], "LOG_LEVEL": "ERROR"})
    report = json.loads(text)
    if report["summary"]["passed"] == 0:
        raise AssertionError("no rule was applied")
    return {(each["check_id"], each["resource"], each["check_name"]) for each in report["results"]["failed_checks"]}


def kept(file):
    found = []
    for rule, thing, name in sorted(failures(file)):
        excused = rule in SKIPPED
        excused |= thing.startswith("DaemonSet") and rule in SKIPPED_FOR_DIRECTORS
        excused |= thing.startswith("Pod.") and "-test-" in thing and rule in SKIPPED_FOR_TESTS
        if not excused:
            found.append(f"{rule} {thing}: {name}")
    if found:
        raise AssertionError("\n  " + "\n  ".join(found))


def check(results):
    for file in ("default-values.yaml", "full-values.yaml", "local-values.yaml"):
        results.check(f"{file} keeps the security policies", kept, file)
