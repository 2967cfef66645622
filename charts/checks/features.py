"""What each switch of the values does to the objects: one function per promise."""

import json
import re

from harness import CHART, HELMS, documents, environment, equal, find, kinds, run, template

PROMISES = []


def promise(file, *sets):
    """A promise about ci/FILE-values.yaml with assignments on top."""

    def register(function):
        PROMISES.append((function, CHART / "ci" / f"{file}-values.yaml", sets))
        return function

    return register


NAME = "shop-pointsman"


def deployment(objects):
    return find(objects, "Deployment", NAME)


def pod(objects):
    return deployment(objects)["spec"]["template"]["spec"]


def container(objects):
    return pod(objects)["containers"][0]


def config(objects, kind="ConfigMap", name=NAME):
    thing = find(objects, kind, name)
    return json.loads({**thing.get("data", {}), **thing.get("stringData", {})}["pointsman.json"])


def volumes(objects):
    return {volume["name"]: volume for volume in pod(objects)["volumes"]}


def mounts(objects):
    return {mount["name"]: mount["mountPath"] for mount in container(objects)["volumeMounts"]}


def has_label(objects, key, value):
    for thing in objects:
        equal(thing["metadata"]["labels"].get(key), value)


@promise("default")
def defaults_are_safe(objects):
    equal(deployment(objects)["spec"]["replicas"], 3)
    strategy = deployment(objects)["spec"]["strategy"]["rollingUpdate"]
    equal(strategy, {"maxSurge": 1, "maxUnavailable": 0})
    equal(pod(objects)["enableServiceLinks"], False)
    security = pod(objects)["securityContext"]
    equal((security["runAsNonRoot"], security["runAsUser"]), (True, 65532))
    equal(security["seccompProfile"], {"type": "RuntimeDefault"})
    limits = container(objects)["securityContext"]
    equal(limits["capabilities"], {"drop": ["ALL"]})
    equal((limits["readOnlyRootFilesystem"], limits["allowPrivilegeEscalation"]), (True, False))
    equal(find(objects, "PodDisruptionBudget", NAME)["spec"]["maxUnavailable"], 1)
    spread = {each["topologyKey"]: each["whenUnsatisfiable"] for each in pod(objects)["topologySpreadConstraints"]}
    equal(spread, {"kubernetes.io/hostname": "ScheduleAnyway", "topology.kubernetes.io/zone": "ScheduleAnyway"})
    off = {"HorizontalPodAutoscaler", "DaemonSet", "NetworkPolicy", "PodMonitor", "ServiceMonitor", "PrometheusRule"}
    equal(kinds(objects) & off, set())


@promise("default")
def probes_ask_the_process_alone(objects):
    paths = {kind: container(objects)[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    equal(paths, {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"})


@promise("default")
def a_pod_drains_before_it_ends(objects):
    command = container(objects)["lifecycle"]["preStop"]["exec"]["command"]
    equal(command, ["pointsman", "drain", "--local", "--endpoint", "unix:/run/pointsman/admin.sock"])
    equal(config(objects)["admin"]["socket"], "/run/pointsman/admin.sock")
    equal(mounts(objects)["run"], "/run/pointsman")
    equal(pod(objects)["terminationGracePeriodSeconds"], 5 + 60 + 5)


@promise("numbers")
def the_grace_period_follows_the_configuration(objects):
    equal(pod(objects)["terminationGracePeriodSeconds"], 90 + 1800 + 5)


@promise("routing")
def a_grace_period_that_is_given_is_used(objects):
    equal(pod(objects)["terminationGracePeriodSeconds"], 120)
    equal([each["topologyKey"] for each in pod(objects)["topologySpreadConstraints"]], ["example.com/rack"])


@promise("numbers")
def whole_numbers_stay_whole(objects):
    text = find(objects, "ConfigMap", NAME)["data"]["pointsman.json"]
    for number in ("86400000", "4000000000", "65535"):
        if not re.search(rf": {number},?\n", text):
            raise AssertionError(f"{number} is not in {text}")


@promise("default")
def every_listener_has_its_service(objects):
    equal(config(objects)["listen"], {"rw": {"address": "[::]:3306"}, "ro": {"address": "[::]:3307"}})
    equal(config(objects)["admin"]["address"], "[::]:9090")
    named = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    equal(named, {"mysql": 3306, "mysql-ro": 3307, "admin": 9090})
    for suffix, target in (("", "mysql"), ("-ro", "mysql-ro"), ("-admin", "admin")):
        service = find(objects, "Service", NAME + suffix)["spec"]
        equal((service["ports"][0]["targetPort"], service["type"]), (target, "ClusterIP"))
        equal(service["ipFamilyPolicy"], "PreferDualStack")
    equal(find(objects, "Service", NAME)["spec"]["ports"][0]["appProtocol"], "mysql")


@promise("full")
def selectors_tell_proxies_from_directors(objects):
    proxies = deployment(objects)["spec"]["selector"]["matchLabels"]
    directors = find(objects, "DaemonSet", f"{NAME}-director")["spec"]["selector"]["matchLabels"]
    equal(proxies["app.kubernetes.io/component"], "proxy")
    equal(directors["app.kubernetes.io/component"], "director")
    for thing in objects:
        if thing["kind"] == "Service":
            equal(thing["spec"]["selector"], proxies)
    equal(find(objects, "PodDisruptionBudget", NAME)["spec"]["selector"]["matchLabels"], proxies)
    equal(find(objects, "PodDisruptionBudget", f"{NAME}-director")["spec"]["selector"]["matchLabels"], directors)


@promise("full")
def selectors_match_their_pods(objects):
    for thing in objects:
        if thing["kind"] in ("Deployment", "DaemonSet"):
            labels = thing["spec"]["template"]["metadata"]["labels"]
            selector = thing["spec"]["selector"]["matchLabels"]
            equal({key: labels.get(key) for key in selector}, selector)


@promise("default")
def the_role_reaches_its_own_record_only(objects):
    rules = find(objects, "Role", NAME)["rules"]
    for rule in rules:
        equal((rule["apiGroups"], rule["resources"]), (["coordination.k8s.io"], ["leases"]))
    without_name = [rule["verbs"] for rule in rules if "resourceNames" not in rule]
    equal(without_name, [["create"]])
    named = [rule for rule in rules if "resourceNames" in rule]
    record = config(objects)["coordination"]["name"]
    equal([rule["resourceNames"] for rule in named], [[record, f"{record}-proxies"]])
    equal(named[0]["verbs"], ["get", "watch", "update", "patch"])
    equal(pod(objects)["automountServiceAccountToken"], True)
    equal(find(objects, "ServiceAccount", NAME)["automountServiceAccountToken"], False)


@promise("record")
def the_record_may_have_its_own_place(objects):
    equal(config(objects)["coordination"], {"backend": "kubernetes", "name": "shop-record", "namespace": "databases"})
    role = find(objects, "Role", NAME)
    names = ["shop-record", "shop-record-proxies"]
    equal((role["metadata"]["namespace"], role["rules"][1]["resourceNames"]), ("databases", names))
    equal(find(objects, "RoleBinding", NAME)["subjects"][0]["name"], NAME)


@promise("local")
def a_single_proxy_needs_no_rights(objects):
    equal(kinds(objects) & {"Role", "RoleBinding"}, set())
    equal(pod(objects)["automountServiceAccountToken"], False)
    equal((mounts(objects)["state"], volumes(objects)["state"]), ("/var/lib/pointsman", {"name": "state", "emptyDir": {}}))


@promise("state-claim")
def the_state_may_be_kept(objects):
    equal(volumes(objects)["state"]["persistentVolumeClaim"], {"claimName": "pointsman-state"})
    equal(deployment(objects)["spec"]["strategy"], {"type": "Recreate"})


@promise("etcd")
def etcd_needs_no_rights(objects):
    equal(kinds(objects) & {"Role", "RoleBinding"}, set())
    egress = find(objects, "NetworkPolicy", NAME)["spec"]["egress"]
    if [{"port": 2379, "protocol": "TCP"}] not in [rule["ports"] for rule in egress]:
        raise AssertionError(f"no way to etcd in {egress}")
    if "state" in volumes(objects):
        raise AssertionError("a volume for a record that is elsewhere")


@promise("autoscaling")
def the_autoscaler_owns_the_number(objects):
    if "replicas" in deployment(objects)["spec"]:
        raise AssertionError("spec.replicas would undo what the autoscaler did, with each upgrade")
    scaler = find(objects, "HorizontalPodAutoscaler", NAME)["spec"]
    equal((scaler["minReplicas"], scaler["maxReplicas"], scaler["scaleTargetRef"]["name"]), (2, 12, NAME))
    equal(scaler["behavior"]["scaleDown"]["policies"][0]["value"], 1)


@promise("director")
def directors_hold_the_address(objects):
    director = find(objects, "DaemonSet", f"{NAME}-director")["spec"]["template"]["spec"]
    equal((director["hostNetwork"], director["dnsPolicy"]), (True, "ClusterFirstWithHostNet"))
    equal(director["containers"][0]["securityContext"]["capabilities"], {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]})
    equal(director["nodeSelector"], {"node-role.example.com/edge": "true"})
    equal(config(objects, name=f"{NAME}-director")["vip"], {"address": "10.20.0.100", "scheduler": "wlc"})
    equal(config(objects, name=f"{NAME}-director")["listen"], {"rw": {"address": "", "socket": "/run/pointsman/mysql.sock"}})
    record = config(objects, name=f"{NAME}-director")["coordination"]["name"]
    leases = [f"{record}{suffix}" for suffix in ("", "-proxies", "-vip", "-vip-proxies")]
    equal(find(objects, "Role", NAME)["rules"][1]["resourceNames"], leases)
    equal(director["automountServiceAccountToken"], True)
    if "vip" in config(objects):
        raise AssertionError("the proxies have no right to hold an address")
    environment = {each["name"]: each.get("value") for each in director["containers"][0]["env"]}
    equal(environment["POINTSMAN_ADMIN__ADDRESS"], "$(NODE_IP):9091")


@promise("director-ipv6")
def addresses_of_nodes_may_be_ipv6(objects):
    director = find(objects, "DaemonSet", f"{NAME}-director")["spec"]["template"]["spec"]["containers"][0]
    environment = {each["name"]: each.get("value") for each in director["env"]}
    equal(environment["POINTSMAN_ADMIN__ADDRESS"], "[$(NODE_IP)]:19091")
    equal(director["ports"][0]["hostPort"], 19091)


@promise("node-port")
def services_may_be_on_nodes(objects):
    service = find(objects, "Service", NAME)["spec"]
    equal((service["type"], service["ports"][0]["nodePort"], service["externalTrafficPolicy"]), ("NodePort", 30306, "Local"))
    equal(find(objects, "Service", f"{NAME}-ro")["spec"]["ports"][0]["nodePort"], 30307)
    equal(find(objects, "Service", f"{NAME}-admin")["spec"]["type"], "ClusterIP")


@promise("load-balancer")
def services_may_be_balanced(objects):
    service = find(objects, "Service", NAME)
    equal(service["spec"]["loadBalancerClass"], "example.com/internal")
    equal(service["spec"]["loadBalancerSourceRanges"], ["10.0.0.0/8"])
    equal(service["metadata"]["annotations"], {"example.com/proxy-protocol": "true"})
    equal(config(objects)["listen"]["rw"]["proxy_protocol"], ["10.0.0.0/8"])


@promise("address-families")
def address_families_may_be_chosen(objects):
    service = find(objects, "Service", NAME)["spec"]
    equal((service["ipFamilyPolicy"], service["ipFamilies"]), ("SingleStack", ["IPv4"]))
    equal((service["internalTrafficPolicy"], service["trafficDistribution"]), ("Local", "PreferClose"))
    equal(service["ports"][0]["port"], 13306)
    equal(config(objects)["listen"]["rw"]["address"], "0.0.0.0:3306")


@promise("default")
def secrets_are_files_of_whole_directories(objects):
    equal(config(objects)["password_file"], "/etc/pointsman/auth/password")
    equal(volumes(objects)["auth"]["secret"], {"secretName": "pointsman", "defaultMode": 0o440})
    for mount in container(objects)["volumeMounts"]:
        if "subPath" in mount:
            raise AssertionError(f"{mount} does not follow changes")
    for variable in container(objects).get("env", []):
        if "secretKeyRef" in variable.get("valueFrom", {}):
            raise AssertionError(f"{variable} holds a secret")


@promise("password")
def a_password_may_be_tried(objects):
    equal(find(objects, "Secret", f"{NAME}-auth")["stringData"], {"password": "try me"})
    equal(volumes(objects)["auth"]["secret"]["secretName"], f"{NAME}-auth")


@promise("tls")
def certificates_are_mounted(objects):
    expected = {"cert_file": "tls.crt", "key_file": "tls.key", "client_ca_file": "ca.crt"}
    expected = {key: f"/etc/pointsman/tls/{file}" for key, file in expected.items()}
    equal(config(objects)["tls"], {"mode": "required", **expected})
    equal((mounts(objects)["tls"], volumes(objects)["tls"]["secret"]["secretName"]), ("/etc/pointsman/tls", "pointsman-tls"))


@promise("backend-tls")
def authorities_of_servers_are_mounted(objects):
    expected = {"ca_file": "ca.crt", "cert_file": "tls.crt", "key_file": "tls.key"}
    expected = {key: f"/etc/pointsman/backend-tls/{file}" for key, file in expected.items()}
    equal(config(objects)["backend_tls"], {"mode": "verify-identity", **expected})


@promise("full")
def authorities_are_used(objects):
    equal(config(objects)["backend_tls"], {"mode": "verify-ca", "ca_file": "/etc/pointsman/backend-tls/ca.crt"})
    if "client_ca_file" in config(objects)["tls"]:
        raise AssertionError("client certificates were not asked for")


@promise("static-users")
def passwords_of_users_are_mounted(objects):
    equal(mounts(objects)["users"], "/etc/pointsman/users")
    equal([user["name"] for user in config(objects)["user_list"]], ["app", "report"])


@promise("secret-config")
def the_configuration_may_be_secret(objects):
    equal(config(objects, kind="Secret")["user_list"][0]["password"], "in the clear")
    equal(volumes(objects)["config"]["secret"], {"secretName": NAME, "defaultMode": 0o440})


@promise("replication")
def further_secrets_are_mounted(objects):
    expected = {"user": "repl", "password_file": "/etc/pointsman/auth/replication"}
    equal(config(objects)["replication"], expected)
    equal(config(objects)["admin"]["token_file"], "/etc/pointsman/admin/token")


@promise("network-policy")
def only_what_is_named_comes_in_and_goes_out(objects):
    policy = find(objects, "NetworkPolicy", NAME)["spec"]
    equal(policy["policyTypes"], ["Ingress", "Egress"])
    clients, monitoring = policy["ingress"]
    equal([port["port"] for port in clients["ports"]], ["mysql", "mysql-ro"])
    equal(clients["from"][0]["namespaceSelector"]["matchLabels"], {"kubernetes.io/metadata.name": "shop"})
    equal(monitoring["from"][0]["namespaceSelector"]["matchLabels"], {"kubernetes.io/metadata.name": "monitoring"})
    servers = policy["egress"][0]
    equal(servers["to"], [{"ipBlock": {"cidr": "10.1.0.0/16"}}])
    equal([port["port"] for port in servers["ports"]], [3306, 3307])
    equal(policy["egress"][-1], {"to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]})


@promise("pod-monitor")
def pods_are_scraped(objects):
    monitor = find(objects, "PodMonitor", NAME)
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    equal((endpoint["port"], endpoint["path"], endpoint["interval"]), ("admin", "/metrics", "5s"))
    equal(endpoint["relabelings"][0]["targetLabel"], "node")
    equal(monitor["metadata"]["labels"]["release"], "prometheus")


@promise("service-monitor")
def the_admin_service_is_scraped(objects):
    monitor = find(objects, "ServiceMonitor", NAME)["spec"]
    admin = find(objects, "Service", f"{NAME}-admin")["metadata"]["labels"]
    wanted = monitor["selector"]["matchLabels"]
    equal({key: admin.get(key) for key in wanted}, wanted)
    # Not the Services of clients as well: each pod would be scraped more than once.
    others = find(objects, "Service", NAME)["metadata"]["labels"]
    if all(others.get(key) == value for key, value in wanted.items()):
        raise AssertionError("the Service of clients is scraped, too")
    equal(monitor["endpoints"][0]["metricRelabelings"][0]["action"], "drop")


@promise("rules")
def alerts_may_be_left_out(objects):
    rules = find(objects, "PrometheusRule", NAME)["spec"]["groups"][0]["rules"]
    alerts = {path.stem for path in (CHART / "files" / "alerts").glob("*.yaml")}
    equal({rule["alert"] for rule in rules}, alerts - {"PointsmanPrimaryChanged", "PointsmanOpenFiles"})
    for rule in rules:
        equal(rule["annotations"]["runbook_url"], f"https://wiki.example/runbooks/{rule['alert']}.md")
        equal(rule["labels"]["team"], "databases")
        if 'namespace="databases"' not in rule["expr"] or "$SELECTOR" in rule["expr"]:
            raise AssertionError(f"{rule['expr']} is not limited to this release")


@promise("dashboard")
def the_dashboard_is_a_document(objects):
    thing = find(objects, "ConfigMap", f"{NAME}-dashboard")
    equal(thing["metadata"]["labels"]["grafana_dashboard"], "1")
    equal(thing["metadata"]["annotations"], {"grafana_folder": "Databases"})
    board = json.loads(thing["data"]["pointsman.json"])
    if not board["panels"]:
        raise AssertionError("no panels")


@promise("escape-hatches")
def escape_hatches_open(objects):
    spec = pod(objects)
    equal(container(objects)["env"][0]["name"], "POINTSMAN_LOG__LEVEL")
    equal(container(objects)["envFrom"], [{"configMapRef": {"name": "more"}}])
    equal(container(objects)["args"][-1], "--listen=[::]:3306")
    equal((mounts(objects)["more"], "more" in volumes(objects)), ("/more", True))
    equal((spec["containers"][1]["name"], spec["initContainers"][0]["name"]), ("beside", "before"))
    labels = deployment(objects)["spec"]["template"]["metadata"]["labels"]
    equal((labels["team"], labels["cost-centre"]), ("databases", "42"))
    equal(deployment(objects)["spec"]["template"]["metadata"]["annotations"]["example.com/note"], "pod")
    equal((spec["nodeSelector"], spec["tolerations"][0]["key"]), ({"disk": "fast"}, "databases"))
    equal(list(spec["affinity"]), ["podAntiAffinity"])
    equal((spec["priorityClassName"], spec["runtimeClassName"], spec["schedulerName"]), ("high", "gvisor", "own"))
    equal((spec["hostAliases"][0]["ip"], spec["imagePullSecrets"]), ("10.0.0.1", [{"name": "registry"}]))
    equal(find(objects, "ConfigMap", "shop-more")["data"], {"release": "shop"})
    has_label([thing for thing in objects if thing["metadata"]["name"] != "shop-more"], "cost-centre", "42")


@promise("no-read-only")
def listeners_and_services_go_together(objects):
    equal({thing["metadata"]["name"] for thing in objects if thing["kind"] == "Service"}, {NAME})
    equal(config(objects)["listen"], {"rw": {"address": "[::]:3306"}})
    equal([port["name"] for port in container(objects)["ports"]], ["mysql", "admin"])
    equal("Pod" in kinds(objects), False)


@promise("image")
def images_may_be_digests(objects):
    image = container(objects)["image"]
    equal(image.split("@")[0], "registry.example/databases/pointsman")
    equal(container(objects)["imagePullPolicy"], "Always")
    for thing in objects:
        if thing["kind"] == "Pod":
            equal(thing["spec"]["containers"][0]["image"], image)


@promise("names")
def names_may_be_the_platforms(objects):
    spec = find(objects, "Deployment", "shop-db")["spec"]["template"]["spec"]
    equal(spec["serviceAccountName"], "shop")
    equal(kinds(objects) & {"ServiceAccount", "Role", "RoleBinding"}, set())
    document = config(objects, name="shop-db")
    equal((document["cluster"], document["user"]), ("shop", "watcher"))
    equal(document["password_file"], "/etc/pointsman/auth/watcher")
    equal([server["name"] for server in document["servers"]], ["db-0", "db-1"])


@promise("plain")
def what_is_off_is_absent(objects):
    equal("PodDisruptionBudget" in kinds(objects), False)
    equal("topologySpreadConstraints" in pod(objects), False)
    equal("checksum/config" in deployment(objects)["spec"]["template"]["metadata"]["annotations"], False)


@promise("default")
def tests_use_the_same_program(objects):
    status = find(objects, "Pod", f"{NAME}-test-status")
    equal(status["metadata"]["annotations"]["helm.sh/hook"], "test")
    equal(status["spec"]["containers"][0]["args"], ["status", "--endpoint", f"http://{NAME}-admin:9090"])
    find(objects, "Pod", f"{NAME}-test-config")


def keep(function, helm, file, sets):
    function(documents(template(helm, file, sets=sets)))


def rolls_with_its_configuration(helm):
    """Another configuration is another pod; the same one is the same."""
    file = CHART / "ci" / "default-values.yaml"

    def checksum(*sets):
        objects = documents(template(helm, file, sets=sets))
        return deployment(objects)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    equal(checksum(), checksum("replicaCount=4"))
    if checksum() == checksum("config.lag.maximum=3s"):
        raise AssertionError("a changed configuration does not replace the pods")


def names_stay_short(helm):
    """No name or label is longer than Kubernetes allows, whatever the release is called."""
    file = CHART / "ci" / "full-values.yaml"
    for thing in documents(template(helm, file, sets=[f"fullnameOverride={'x' * 80}"])):
        if len(thing["metadata"]["name"]) > 63:
            raise AssertionError(f"{thing['kind']} {thing['metadata']['name']} is too long")


def notes_name_the_dsn():
    """By Helm 4 alone: Helm 3 shows the notes of nothing but a release in a cluster."""
    command = [HELMS["Helm 4"], "install", "shop", CHART, "--namespace", "databases", "--dry-run=client"]
    text = run(*command, "--values", CHART / "ci" / "default-values.yaml", environment=environment())
    for expected in ("mysql://USER:PASSWORD@shop-pointsman.databases.svc.cluster.local:3306/DATABASE", "-ro.databases"):
        if expected not in text:
            raise AssertionError(f"expected {expected} in {text}")


def check(results):
    for helm in HELMS:
        for function, file, sets in PROMISES:
            results.check(f"{helm}, {file.name}: {function.__name__.replace('_', ' ')}", keep, function, helm, file, sets)
        results.check(f"{helm}: rolls with its configuration", rolls_with_its_configuration, helm)
        results.check(f"{helm}: names stay short", names_stay_short, helm)
    results.check("notes name the DSN", notes_name_the_dsn)
