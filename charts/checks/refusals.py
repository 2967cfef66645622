"""Values that the chart must refuse, and what the refusal must name: the value, and what to do."""

import pathlib
import tempfile

import yaml

from harness import CHART, HELMS, template

DEFAULT = CHART / "ci" / "default-values.yaml"
RECORD_IN_FILE = "config.coordination.backend=local"

# Name, assignments on top of ci/default-values.yaml, and words of the message: for both Helms, or of each.
REFUSED = [
    ("an unknown value", ["replicaCout=2"], ["replicaCout", "not allowed"]),
    ("an unknown value further down", ["service.portt=1"], ["portt", "not allowed"]),
    ("an unknown option of the configuration", ["config.pool.max_conections=1"], ["max_conections", "not allowed"]),
    ("an unknown section of the configuration", ["config.pols.x=1"], ["pols", "not allowed"]),
    ("text for a number", ["replicaCount=three"], ["replicaCount", "integer"]),
    ("a number for text", ["config.user=5"], ["config", "user"]),
    ("a number without a unit", ["config.drain.delay=5"], ["drain", "delay", "string"]),
    ("a duration with a wrong unit", ["config.drain.delay=5 parsecs"], ["drain", "delay", "pattern"]),
    ("a choice that is none", ["config.pool.mode=statement"], ["pool", "mode", "transaction"]),
    ("a type of Service that is none", ["service.type=ExternalName"], ["service", "type", "LoadBalancer"]),
    ("a port out of range", ["service.port=70000"], ["service", "port"]),
    ("a pull policy that is none", ["image.pullPolicy=Sometimes"], ["pullPolicy", "IfNotPresent"]),
    ("a digest that is none", ["image.digest=sha256:1"], ["digest", "pattern"]),
    ("an interval without a unit", ["metrics.podMonitor.interval=15"], ["interval", "string"]),
    ("an alert that is none", ["metrics.rules.excludeRules={NoSuchAlert}"], ["excludeRules", "PointsmanNoPrimary"]),
    ("a boolean as text", ["director.enabled=sometimes"], ["director", "enabled", "boolean"]),
    ("local coordination of several proxies", [RECORD_IN_FILE], ["replicaCount", "1"]),
    (
        "local coordination with an autoscaler",
        [RECORD_IN_FILE, "replicaCount=1", "autoscaling.enabled=true"],
        ["autoscaling", "enabled", "false"],
    ),
    (
        "local coordination with directors",
        [RECORD_IN_FILE, "replicaCount=1", "director.enabled=true", "config.vip.address=10.0.0.9"],
        ["director", "enabled", "false"],
    ),
    (
        "several proxies with the coordination of a program without configuration",
        ["config.coordination.backend=null"],
        ["config.coordination.backend is local", "replicaCount=1"],
    ),
    ("no server", ["config.servers=null"], ["config.servers is empty", "give the servers"]),
    ("no password", ["auth.existingSecret="], ["auth.existingSecret is empty", "create secret generic"]),
    ("two passwords", ["auth.password=x"], ["auth.existingSecret and auth.password", "remove auth.password"]),
    (
        "a key of no Secret",
        ["auth.existingSecret=", "auth.password=x", "auth.replicationPasswordKey=repl"],
        ["auth.replicationPasswordKey", "auth.existingSecret"],
    ),
    ("a virtual address without an address", ["director.enabled=true"], ["director.enabled", "set config.vip.address"]),
    ("a virtual address without directors", ["config.vip.address=10.0.0.9"], ["config.vip.address", "director.enabled=true"]),
    ("a listener's address twice", ["config.listen.rw.address=:3306"], ["config.listen.rw.address", "ports.mysql"]),
    ("a reader's address twice", ["config.listen.ro.address=:3307"], ["config.listen.ro.address", "ports.mysqlReadOnly"]),
    ("an admin address twice", ["config.admin.address=:9090"], ["config.admin.address", "ports.admin"]),
    ("an admin socket", ["config.admin.socket=/x"], ["config.admin.socket", "remove it"]),
    ("a password's file twice", ["config.password_file=/x"], ["config.password_file", "auth.passwordKey"]),
    ("a token's file twice", ["config.admin.token_file=/x"], ["config.admin.token_file", "admin.tokenKey"]),
    ("a password in a ConfigMap", ["config.password=x"], ["config.password", "use auth.existingSecret"]),
    ("a token in a ConfigMap", ["config.admin.token=x"], ["config.admin.token", "use admin.existingSecret"]),
    (
        "a replication password in a ConfigMap",
        ["config.replication.user=r", "config.replication.password=x"],
        ["config.replication.password", "auth.replicationPasswordKey"],
    ),
    (
        "a user's password in a ConfigMap",
        ["config.user_list[0].name=app", "config.user_list[0].password=x"],
        ["config.user_list", "app", "configAsSecret=true"],
    ),
    (
        "a ServiceMonitor of no Service",
        ["metrics.serviceMonitor.enabled=true", "adminService.enabled=false"],
        ["metrics.serviceMonitor.enabled", "adminService.enabled=true"],
    ),
    (
        "an autoscaler whose bounds cross",
        ["autoscaling.enabled=true", "autoscaling.maxReplicas=2"],
        ["autoscaling.minReplicas", "autoscaling.maxReplicas"],
    ),
    (
        "an autoscaler without a request",
        ["autoscaling.enabled=true", "resources.requests.cpu=null"],
        ["autoscaling.enabled", "resources.requests.cpu"],
    ),
    ("client authorities of no Secret", ["tls.clientCa=true"], ["tls.clientCa", "tls.existingSecret"]),
    (
        "a client certificate of no Secret",
        ["backendTls.clientCertificate=true"],
        ["backendTls.clientCertificate", "backendTls.existingSecret"],
    ),
]


def refused(helm, words, sets=(), kubernetes="1.37", values=DEFAULT):
    try:
        template(helm, values, sets=sets, kubernetes=kubernetes)
    except AssertionError as refusal:
        missing = [word for word in words if word not in str(refusal)]
        if missing:
            raise AssertionError(f"expected {missing} in the message, got {refusal}") from None
    else:
        raise AssertionError("expected a refusal, got a rendered chart")


def every_level_is_closed(helm):
    """An unknown value is refused at every level of the chart's own values."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = {"resources", "podSecurityContext", "securityContext", "updateStrategy", "behavior", "stateVolume"}
    free |= {"labels", "annotations", "commonLabels", "podLabels", "podAnnotations", "nodeSelector", "affinity"}

    def sections(value, path):
        for key, below in value.items():
            if isinstance(below, dict) and key not in free:
                yield [*path, key]
                yield from sections(below, [*path, key])

    default = yaml.safe_load(DEFAULT.read_text())
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "values.yaml"
        for path in sections(values, []):
            wrong = yaml.safe_load(yaml.safe_dump(default))
            place = wrong
            for key in path:
                place = place.setdefault(key, {})
            place["nonesuch"] = 1
            file.write_text(yaml.safe_dump(wrong))
            try:
                refused(helm, ["nonesuch"], values=file)
            except AssertionError as error:
                raise AssertionError(f"{'.'.join(path)}: {error}") from None


def check(results):
    for helm in HELMS:
        for name, sets, words in REFUSED:
            results.check(f"{helm} refuses {name}", refused, helm, words, sets)
        results.check(f"{helm} refuses an old Kubernetes", refused, helm, ["kubeVersion: >=1.25", "1.24"], [], "1.24.0")
        results.check(f"{helm} refuses unknown values at every level", every_level_is_closed, helm)
