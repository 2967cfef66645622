"""A missing Secret is refused by name, where there is a cluster to ask: here a stand-in for its API server."""

import json
import pathlib
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

from harness import CHART, HELMS, environment, run

# What Helm must know to be there: the kinds of the chart, by group and version.
KINDS = {
    "v1": ["Namespace", "Secret", "ConfigMap", "Service", "ServiceAccount", "Pod"],
    "apps/v1": ["Deployment"],
    "policy/v1": ["PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
}


class ApiServer(BaseHTTPRequestHandler):
    """Answers what Helm asks: the version, which resources there are, the namespace, and the Secrets there are."""

    secrets = ()

    def do_GET(self):
        path = self.path.split("?")[0].rstrip("/")
        answer = {
            "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()},
            "/api/v1/namespaces/databases": thing("Namespace", "databases"),
        }.get(path)
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version in KINDS:
            answer = resources(version)
        for name in self.secrets:
            if path == f"/api/v1/namespaces/databases/secrets/{name}":
                answer = thing("Secret", name)
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(answer or status).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def groups():
    names = [version.split("/")[0] for version in KINDS if "/" in version]
    versions = {name: {"groupVersion": f"{name}/v1", "version": "v1"} for name in names}
    return [{"name": name, "versions": [version], "preferredVersion": version} for name, version in versions.items()]


def resources(version):
    listed = [
        {"name": f"{kind.lower()}s", "singularName": "", "namespaced": kind != "Namespace", "kind": kind, "verbs": ["get"]}
        for kind in KINDS[version]
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


def thing(kind, name):
    return {"kind": kind, "apiVersion": "v1", "metadata": {"name": name}}


def render(helm, secrets, *sets):
    handler = type("WithSecrets", (ApiServer,), {"secrets": secrets})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with tempfile.TemporaryDirectory() as directory:
            kubeconfig = pathlib.Path(directory) / "config"
            cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
            context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
            users = [{"name": "u", "user": {}}]
            document = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
            document |= {"clusters": [cluster], "contexts": [context], "users": users}
            kubeconfig.write_text(yaml.safe_dump(document))
            command = [HELMS[helm], "template", "shop", CHART, "--namespace", "databases", "--dry-run=server", "--disable-openapi-validation"]
            arguments = [part for assignment in sets for part in ("--set", assignment)]
            values = ["--values", CHART / "ci" / "tls-values.yaml"]
            changed = environment() | {"KUBECONFIG": str(kubeconfig), "HOME": directory}
            return run(*command, *values, *arguments, environment=changed)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refuses_what_is_missing(helm):
    try:
        render(helm, ["pointsman"])
    except AssertionError as refusal:
        expected = 'tls.existingSecret: there is no Secret "pointsman-tls" in namespace "databases"'
        if expected not in str(refusal) or "auth.existingSecret" in str(refusal):
            raise AssertionError(f"expected only {expected}, got {refusal}") from None
    else:
        raise AssertionError("expected a refusal")


def accepts_what_is_there(helm):
    render(helm, ["pointsman", "pointsman-tls"])


def asks_only_when_wanted(helm):
    render(helm, [], "checkSecrets=false")


def check(results):
    for helm in HELMS:
        for function in (refuses_what_is_missing, accepts_what_is_there, asks_only_when_wanted):
            results.check(f"{helm}: {function.__name__.replace('_', ' ')}", function, helm)
