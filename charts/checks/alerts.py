"""The alerts: Prometheus can read them, each fires for what it is there for and for nothing else, each has a runbook."""

import pathlib
import tempfile

import yaml

from harness import CHART, TOOLS, documents, environment, equal, run, template

RUNBOOKS = CHART.parent.parent / "docs" / "runbooks"
ALERTS = sorted((CHART / "files" / "alerts").glob("*.yaml"))
LABELS = 'namespace="databases", pod="shop-pointsman-{}"'


def series(name, more="", values="1x90", pod="a"):
    labels = LABELS.format(pod) + (f", {more}" if more else "")
    return {"series": f"{name}{{{labels}}}", "values": values}


# What a sound cluster with a proxy, a primary and a replica looks like; one sample every 30 seconds.
SOUND = [
    series("pointsman_build_info"),
    series("pointsman_primary_known"),
    series("pointsman_topology_epoch", values="3x90"),
    series("pointsman_server_up", 'server="db-0"'),
    series("pointsman_server_up", 'server="db-1"'),
    series("pointsman_server_role", 'server="db-0", role="primary"'),
    series("pointsman_server_role", 'server="db-1", role="replica"'),
    series("pointsman_server_role", 'server="db-1", role="primary"', "0x90"),
    series("pointsman_server_state", 'server="db-1", state="online"'),
    series("pointsman_server_state", 'server="db-1", state="lagging"', "0x90"),
    series("pointsman_server_state", 'server="db-1", state="excluded"', "0x90"),
    series("pointsman_pool_acquire_timeouts_total", values="7x90"),
    series("pointsman_queries_total", 'server="db-0", kind="write"', "0+3000x90"),
    series("pointsman_server_errors_total", 'server="db-0"', "0+1x90"),
    series("pointsman_errors_total", 'source="proxy"', "0+1x90"),
    series("pointsman_client_logins_total", 'outcome="accepted"', "0+30x90"),
    series("pointsman_client_logins_total", 'outcome="refused"', "0+6x90"),
    series("pointsman_config_last_reload_success"),
    series("pointsman_config_restart_required", values="0x90"),
    series("process_open_fds", values="100x90"),
    series("process_max_fds", values="1000x90"),
]

# For each alert the series that differ, and the alerts that fire then.
CASES = {
    "PointsmanDown": (None, {"PointsmanDown"}),
    "PointsmanNoPrimary": ([series("pointsman_primary_known", values="0x90")], {"PointsmanNoPrimary"}),
    "PointsmanPrimaryLostBySome": (
        [series("pointsman_primary_known", values="0x90", pod="b")],
        {"PointsmanPrimaryLostBySome"},
    ),
    "PointsmanProxiesDisagree": (
        [series("pointsman_server_role", 'server="db-1", role="primary"', pod="b")],
        {"PointsmanProxiesDisagree"},
    ),
    "PointsmanPrimaryChanged": ([series("pointsman_topology_epoch", values="3x80 4x10")], {"PointsmanPrimaryChanged"}),
    "PointsmanServerDown": ([series("pointsman_server_up", 'server="db-1"', "0x90")], {"PointsmanServerDown"}),
    "PointsmanServerExcluded": (
        [
            series("pointsman_server_state", 'server="db-1", state="excluded"'),
            series("pointsman_server_state", 'server="db-1", state="online"', "0x90"),
        ],
        {"PointsmanServerExcluded", "PointsmanReadPoolEmpty"},
    ),
    "PointsmanReplicaLagging": (
        [
            series("pointsman_server_state", 'server="db-1", state="lagging"'),
            series("pointsman_server_state", 'server="db-1", state="online"', "0x90"),
        ],
        {"PointsmanReplicaLagging", "PointsmanReadPoolEmpty"},
    ),
    "PointsmanReadPoolEmpty": (
        [series("pointsman_server_state", 'server="db-1", state="online"', "0x90")],
        {"PointsmanReadPoolEmpty"},
    ),
    "PointsmanPoolSaturated": (
        [series("pointsman_pool_acquire_timeouts_total", values="0+1x90")],
        {"PointsmanPoolSaturated"},
    ),
    "PointsmanServerErrors": (
        [series("pointsman_server_errors_total", 'server="db-0"', "0+90x90")],
        {"PointsmanServerErrors"},
    ),
    "PointsmanProxyErrors": ([series("pointsman_errors_total", 'source="proxy"', "0+9x90")], {"PointsmanProxyErrors"}),
    "PointsmanLoginsRefused": (
        [series("pointsman_client_logins_total", 'outcome="refused"', "0+60x90")],
        {"PointsmanLoginsRefused"},
    ),
    "PointsmanConfigRefused": (
        [series("pointsman_config_last_reload_success", values="0x90")],
        {"PointsmanConfigRefused"},
    ),
    "PointsmanConfigWaits": (
        # Half an hour is longer than the other cases are.
        [series("pointsman_config_restart_required", values="2x90")],
        {"PointsmanConfigWaits"},
    ),
    "PointsmanOpenFiles": ([series("process_open_fds", values="900x90")], {"PointsmanOpenFiles"}),
}


def rendered():
    file = CHART / "ci" / "rules-values.yaml"
    sets = ["metrics.rules.excludeRules=null"]
    for thing in documents(template("Helm 4", file, sets=sets)):
        if thing["kind"] == "PrometheusRule":
            return thing["spec"]
    raise AssertionError("no PrometheusRule")


def promtool(*arguments, **files):
    """Runs promtool in a directory that holds these documents."""
    with tempfile.TemporaryDirectory() as directory:
        for name, document in files.items():
            (pathlib.Path(directory) / f"{name}.yaml").write_text(yaml.safe_dump(document, width=1000))
        paths = [str(pathlib.Path(directory) / part) if part.endswith(".yaml") else part for part in arguments]
        return run(TOOLS / "promtool", *paths, environment=environment())


def readable():
    promtool("check", "rules", "rules.yaml", rules=rendered())


def fires(changed, expected):
    """With these series instead of sound ones, just these alerts fire at the end."""
    replaced = {each["series"] for each in changed or []}
    input_series = [each for each in SOUND if each["series"] not in replaced] + (changed or [])
    if changed is None:
        input_series = [{"series": "unrelated", "values": "1x90"}]
    tests = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0',
            "eval_time": "42m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)],
        }
    ]
    test = {"interval": "30s", "input_series": input_series, "promql_expr_test": tests}
    promtool("test", "rules", "tests.yaml", rules=rendered(), tests={"rule_files": ["rules.yaml"], "tests": [test]})


def complete():
    """One file, one alert, one case, one runbook that is listed."""
    names = {path.stem for path in ALERTS}
    equal({yaml.safe_load(path.read_text())["alert"] for path in ALERTS}, names)
    equal(set(CASES), names)
    equal({path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}, names)
    listed = (RUNBOOKS / "README.md").read_text()
    for path in ALERTS:
        alert = yaml.safe_load(path.read_text())
        row = f"| [{path.stem}]({path.stem}.md) | {alert['labels']['severity']} |"
        if row not in listed:
            raise AssertionError(f"docs/runbooks/README.md lacks {row}")
        text = (RUNBOOKS / f"{path.stem}.md").read_text()
        for part in (f"# {path.stem}\n", "**Look**", "**Do**"):
            if part not in text:
                raise AssertionError(f"the runbook of {path.stem} lacks {part!r}")


def check(results):
    results.check("each alert has its runbook", complete)
    results.check("Prometheus reads the alerts", readable)
    results.check("no alert fires for a sound cluster", fires, [], set())
    for name, (changed, expected) in CASES.items():
        results.check(f"{name} fires when it should", fires, changed, expected)
