//! Whole configurations: what is read from them, and every message that a wrong one gets.

mod sources;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::choices::{Balance, Consistency, ListenerName, LogFormat, Promotion, RuleTarget, TlsMode};

const BASE: &str = "servers = [\"db-1\"]\nuser = \"p\"\n";

fn documents(files: &[(&str, &str)]) -> Vec<Document> {
    files
        .iter()
        .map(|(name, text)| Document { path: PathBuf::from(name), text: (*text).to_owned() })
        .collect()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_texts(
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
    flags: &[(&str, &str, &str)],
) -> Result<Loaded, Faults> {
    let flags = flags.iter().map(|(name, key, value)| Flag {
        name: (*name).to_owned(),
        key: (*key).to_owned(),
        values: value.split('|').map(ToOwned::to_owned).collect(),
    });
    let sources = Sources { file: None, environment: variables(environment), flags: flags.collect() };
    load_documents(&documents(files), &sources, Vec::new())
}

fn config(text: &str) -> Config {
    match load_texts(&[("p.toml", text)], &[], &[]) {
        Ok(loaded) => loaded.config,
        Err(faults) => panic!("{faults}"),
    }
}

#[track_caller]
fn refused(outcome: Result<Loaded, Faults>, expected: &[&str]) {
    let messages: Vec<String> = match outcome {
        Ok(_) => Vec::new(),
        Err(Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(messages, expected);
}

/// A file, and every message about it.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    refused(load_texts(&[("p.toml", text)], &[], &[]), expected);
}

/// The base configuration with lines after it (from line 3 on), and every message about it.
#[track_caller]
fn check_after_base(text: &str, expected: &[&str]) {
    check(&format!("{BASE}{text}"), expected);
}

fn write(directory: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn the_common_case_needs_three_lines() {
    let directory = TempDir::new().unwrap();
    let secret = write(&directory, "secret", "hunter2\n", 0o600);
    let config = config(&format!(
        "servers = [\"db-1:3306\", \"db-2:3306\", \"db-3:3306\"]\nuser = \"pointsman\"\npassword_file = {secret:?}\n"
    ));
    let names: Vec<_> =
        config.servers.iter().map(|s| (s.name.as_str(), s.address.as_str(), s.weight)).collect();
    assert_eq!(names, [("db-1", "db-1:3306", 100), ("db-2", "db-2:3306", 100), ("db-3", "db-3:3306", 100)]);
    assert_eq!((config.user.as_str(), config.password.expose()), ("pointsman", "hunter2"));
    let defaults = Config::default();
    assert_eq!(
        config,
        Config {
            servers: config.servers.clone(),
            user: config.user.clone(),
            password: config.password.clone(),
            ..defaults
        }
    );
}

#[test]
fn every_kind_of_value_is_read() {
    let config = config(
        r#"
        servers = ["10.0.0.1", "10.0.0.1:3307"]
        user = "p"
        [[server]]
        name = "third"
        address = "[::1]:3306"
        weight = 0
        promotion = "never"
        max_connections = 7
        [[user]]
        name = "app"
        password = "x"
        consistency = "eventual"
        listener = "ro"
        [users]
        source = "static"
        [listen.ro]
        address = "127.0.0.1:3307"
        proxy_protocol = ["10.0.0.0/8", "::1"]
        [tls]
        mode = "required"
        [routing]
        balance = "weighted_round_robin"
        read_wait = "1.5s"
        [[routing.rule]]
        target = "replica"
        schema = "reports"
        [failover]
        replay_limit = "2MiB"
        fence_command = ["ssh", "old", "kill"]
        [vip]
        address = "10.0.0.100"
        [log]
        format = "json"
        "#,
    );
    let names: Vec<_> = config.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["10.0.0.1:3306", "10.0.0.1:3307", "third"]);
    let third = &config.servers[2];
    assert_eq!((third.weight, third.promotion, third.max_connections), (0, Promotion::Never, Some(7)));
    let user = &config.user_list[0];
    assert_eq!(user.password.expose(), "x");
    assert_eq!((user.consistency, user.listener), (Some(Consistency::Eventual), Some(ListenerName::Ro)));
    assert_eq!(config.listen.rw.address, "[::]:3306");
    let networks: Vec<_> = config.listen.ro.proxy_protocol.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
    assert_eq!((config.tls.mode, config.log.format), (TlsMode::Required, LogFormat::Json));
    assert_eq!(config.routing.balance, Balance::WeightedRoundRobin);
    assert_eq!(config.routing.read_wait, Duration::from_millis(1500));
    let rule = &config.routing.rules[0];
    assert_eq!((rule.name.as_str(), rule.target), ("rule-1", RuleTarget::Replica));
    assert_eq!(config.failover.replay_limit, 2 << 20);
    assert_eq!(config.failover.fence_command, ["ssh", "old", "kill"]);
    assert_eq!(config.vip.address, Some("10.0.0.100".parse().unwrap()));
}

#[test]
fn json_is_the_same_model() {
    let text = r#"{"servers": ["a", {"address": "b:1", "weight": 5}], "server": [{"address": "c"}],
        "user": "p", "user_list": [{"name": "app"}], "listen": {"ro": {"address": ""}},
        "vip": {"address": "", "interface": null}, "pool": {"idle_timeout": "1m"}}"#;
    let loaded = load_texts(&[("p.json", text)], &[], &[]).unwrap();
    let servers: Vec<_> = loaded.config.servers.iter().map(|s| (s.address.as_str(), s.weight)).collect();
    assert_eq!(servers, [("a:3306", 100), ("b:1", 5), ("c:3306", 100)]);
    assert_eq!(loaded.config.pool.idle_timeout, Duration::from_secs(60));
    assert_eq!(loaded.config.user_list[0].name, "app");
    refused(
        load_texts(&[("p.json", "{\n \"servers\": [\"a\"],\n \"usr\": 1.0\n")], &[], &[]),
        &["p.json:4:1: expected \",\" or \"}\""],
    );
    refused(
        load_texts(
            &[("p.json", "{\"servers\": [\"a\"],\n \"usr\": 1, \"vip\": {\"port\": 3306.0}}")],
            &[],
            &[],
        ),
        &[
            "p.json:2:2: usr: unknown key; did you mean \"user\"?",
            "p.json:2:28: vip.port: expected a number from 1 to 65535, got the number 3306.0",
            "user: the service account is missing; expected the name of a user",
        ],
    );
}

#[test]
fn keys_are_known() {
    check_after_base(
        "[routing]\nbalnce = \"adaptive\"\nhold_time = \"1s\"\n",
        &[
            "p.toml:4:1: routing.balnce: unknown key; did you mean \"balance\"?",
            "p.toml:5:1: routing.hold_time: unknown key; did you mean \"hold_timeout\"?",
        ],
    );
    check_after_base(
        "interval = \"1s\"\nbanana = 1\n[lsten.rw]\naddress = \"\"\n",
        &[
            "p.toml:3:1: interval: unknown key; did you mean \"monitor.interval\"?",
            "p.toml:4:1: banana: unknown key",
            "p.toml:5:2: lsten: unknown key; did you mean \"listen\"?",
        ],
    );
    check_after_base(
        "[[server]]\naddress = \"b\"\nwieght = 5\n[[user]]\nnmae = \"x\"\n",
        &[
            "p.toml:5:1: server[0].wieght: unknown key; did you mean \"weight\"?",
            "p.toml:7:1: user[0].nmae: unknown key; did you mean \"name\"?",
            "p.toml:6:1: user[0].name: expected the name of a user, got \"\"",
        ],
    );
    check_after_base(
        "cert_file_file = \"x\"\npool.min_idle_file = \"x\"\n",
        &["p.toml:3:1: cert_file_file: unknown key", "p.toml:4:6: pool.min_idle_file: unknown key"],
    );
}

#[test]
fn values_have_types() {
    check_after_base(
        "cluster = 5\npassword = 7\n[tls]\nmode = true\n[pool]\nmax_connections = \"many\"\n",
        &[
            "p.toml:3:11: cluster: expected text, got the number 5",
            "p.toml:4:12: password: expected text, got a number",
            "p.toml:6:8: tls.mode: expected one of disabled, preferred, required, got true",
            "p.toml:8:19: pool.max_connections: expected a number from 1 to 4294967295, got the text \"many\"",
        ],
    );
    check_after_base(
        "listen = \"[::]:3306\"\nserver = \"x\"\nfailover.fence_command = \"kill\"\nrouting.rule = 1\n",
        &[
            "p.toml:3:10: listen: expected a table, got the text \"[::]:3306\"",
            "p.toml:4:10: server: expected a list of tables, [[server]], got the text \"x\"",
            "p.toml:5:26: failover.fence_command: expected a list of texts, got the text \"kill\"",
            "p.toml:6:16: routing.rule: expected a list of tables, got the number 1",
        ],
    );
    check(
        "servers = \"db-1\"\nuser = [1]\n",
        &[
            "p.toml:1:11: servers: expected a list as in [\"db-1:3306\"], got the text \"db-1\"",
            "p.toml:2:9: user[0]: expected a table, got the number 1",
            "p.toml:2:8: user: the service account is missing; expected the name of a user",
        ],
    );
    check_after_base(
        "vip.port = 0\nvip.address = \"x\"\nmonitor.failures = 99999999999\nruntime.workers = -1\n",
        &[
            "p.toml:3:12: vip.port: expected 1 to 65535, got 0",
            "p.toml:4:15: vip.address: expected an IP address, got \"x\"",
            "p.toml:5:20: monitor.failures: expected 1 to 4294967295, got 99999999999",
            "p.toml:6:19: runtime.workers: expected 0 to 1024, got -1",
        ],
    );
    check_after_base(
        "log.level = \"inf\"\nlog.format = \"xml\"\nlog.slow_query = 1979-05-27\n",
        &[
            "p.toml:3:13: log.level: expected one of error, warn, info, debug, trace, got \"inf\"; did you mean \"info\"?",
            "p.toml:4:14: log.format: expected one of text, json, got \"xml\"",
            "p.toml:5:18: log.slow_query: expected a duration with a unit as in \"1s\", got the date 1979-05-27",
        ],
    );
}

#[test]
fn durations_and_sizes_have_units() {
    check_after_base(
        "[pool]\nidle_timeout = 5\nmax_lifetime = \"60\"\nacquire_timeout = \"5 parsecs\"\n",
        &[
            "p.toml:4:16: pool.idle_timeout: expected a number and a unit (us, ms, s, m, h, d) as in \"1s\" or \
         \"1m30s\", got the plain number 5; write \"5s\"",
            "p.toml:5:16: pool.max_lifetime: expected a number and a unit (us, ms, s, m, h, d) as in \"1s\" or \
         \"1m30s\", got the plain number 60; write \"60s\"",
            "p.toml:6:19: pool.acquire_timeout: expected a number and a unit (us, ms, s, m, h, d) as in \"1s\" or \
         \"1m30s\", got \"5 parsecs\"",
        ],
    );
    check_after_base(
        "failover.replay_limit = 1048576\nlisten.rw.proxy_protocol = [\"10.0.0.0/33\"]\n",
        &[
            "p.toml:3:25: failover.replay_limit: expected a size with a unit (B, KiB, MiB, GiB, kB, MB, GB) as in \
         \"1MiB\", got the plain number 1048576; write \"1048576B\"",
            "p.toml:4:29: listen.rw.proxy_protocol[0]: expected a network as in \"10.0.0.0/8\" or an address, got \
         \"10.0.0.0/33\"",
        ],
    );
    check_after_base(
        "monitor.interval = \"0s\"\nlag.maximum = \"0ms\"\nrouting.read_wait = \"0s\"\n",
        &[
            "p.toml:4:15: lag.maximum: expected a duration over zero",
            "p.toml:3:20: monitor.interval: expected a duration over zero",
        ],
    );
}

#[test]
fn syntax_errors_do_not_hide_other_faults() {
    check(
        "servers = [\"a\"\nuser = \"p\"\nbanana = 1\n",
        &["p.toml:2:1: missing comma between array elements, expected `,`"],
    );
    check(
        "servers = [\"a\"]\nuser = \npool.mode = \"x\"\nuser = \"p\"\n",
        &[
            "p.toml:2:8: string values must be quoted, expected literal string",
            "p.toml:3:13: pool.mode: expected one of transaction, session, got \"x\"",
            "p.toml:4:1: duplicate key",
        ],
    );
    refused(
        load_texts(&[("p.yaml", "servers: []")], &[], &[]),
        &["p.yaml: expected a file name that ends with .toml or .json"],
    );
}

#[test]
fn servers_are_told_apart() {
    check(
        "",
        &[
            "servers: no server is given; expected servers = [\"host:port\", ...]",
            "user: the service account is missing; expected the name of a user",
        ],
    );
    check(
        "servers = [\"a\", \"b:0\", \"A:3306\", \"c\"]\nuser = \"p\"\n[[server]]\nname = \"c\"\naddress = \"d\"\n\
        [[server]]\nname = \"x y\"\naddress = \"e\"\n[[server]]\nname = \"f\"\n",
        &[
            "p.toml:1:17: servers[1].address: expected host:port as in \"db-1:3306\" or \"[::1]:3306\", got \"b:0\"",
            "p.toml:1:24: servers[2].address: the address \"A:3306\" is given twice, first at p.toml:1:12",
            "p.toml:4:8: server[0].name: the name \"c\" is given twice, first at p.toml:1:34",
            "p.toml:7:8: server[1].name: expected a name of 1 to 64 printable ASCII characters without spaces, got \
         \"x y\"",
            "p.toml:9:1: server[2].address: expected host:port as in \"db-1:3306\" or \"[::1]:3306\", got \"\"",
        ],
    );
}

#[test]
fn options_agree_with_each_other() {
    check_after_base(
        "[listen.rw]\naddress = \"\"\n",
        &[
            "p.toml:4:11: listen.rw.address: nothing to listen on; expected listen.rw or listen.ro to have an address \
         or a socket",
        ],
    );
    check_after_base(
        "vip = { address = \"10.0.0.9\", port = 3307 }\nlisten.ro.address = \"10.0.0.9:3307\"\n\
         admin.address = \"127.0.0.1:3306\"\nlisten.rw.socket = \"/s\"\nadmin.socket = \"/s\"\n",
        &[
            "p.toml:4:21: listen.ro.address: already used by vip.address",
            "p.toml:5:17: admin.address: already used by listen.rw.address",
            "p.toml:7:16: admin.socket: already used by listen.rw.socket",
        ],
    );
    check_after_base(
        "[backend_tls]\nmode = \"verify-ca\"\n",
        &["p.toml:4:8: backend_tls.mode: needs backend_tls.ca_file"],
    );
    check_after_base(
        "users.source = \"static\"\n",
        &["p.toml:3:16: users.source: needs at least one [[user]]"],
    );
    check_after_base(
        "[[user]]\nname = \"a\"\n[[user]]\nname = \"a\"\n[[user]]\n",
        &[
            "p.toml:6:8: user[1].name: the user \"a\" is given twice, first at p.toml:4:8",
            "p.toml:7:1: user[2].name: expected the name of a user, got \"\"",
        ],
    );
    check_after_base(
        "[[routing.rule]]\nname = \"r\"\n[[routing.rule]]\nname = \"r\"\nuser = \"a\"\n",
        &[
            "p.toml:3:1: routing.rule[0]: needs a condition: digest, user, schema or listener",
            "p.toml:6:8: routing.rule[1].name: the rule \"r\" is given twice, first at p.toml:4:8",
        ],
    );
    check_after_base(
        "lag.preferred = \"1m\"\npool.min_idle = 200\nreplication.password = \"x\"\ncluster = \"a b\"\n",
        &[
            "p.toml:6:11: cluster: expected a name of 1 to 54 letters, digits, \"-\", \"_\" and \".\", got \"a b\"",
            "p.toml:5:24: replication.password: needs replication.user",
            "p.toml:3:17: lag.preferred: expected at most lag.maximum (10s), got 1m",
            "p.toml:4:17: pool.min_idle: expected at most pool.max_connections (100), got 200",
        ],
    );
    check_after_base(
        "coordination.backend = \"etcd\"\nvip.link = \"far-too-long-name\"\nadmin.token = \"\"\n",
        &[
            "p.toml:5:15: admin.token: expected a token that is not empty, got \"\"",
            "p.toml:3:24: coordination.backend: needs coordination.endpoints",
            "p.toml:4:12: vip.link: expected the name of a network interface, 1 to 15 characters, got \
             \"far-too-long-name\"",
        ],
    );
    check_after_base(
        "coordination = { backend = \"etcd\", endpoints = [\"etcd-1:2379\"] }\nfailover.fence_command = [\"\"]\n",
        &[
            "p.toml:4:27: failover.fence_command[0]: expected the path of a program, got \"\"",
            "p.toml:3:49: coordination.endpoints[0]: expected a URL as in \"http://etcd-1:2379\", got \
             \"etcd-1:2379\"",
        ],
    );
}

#[test]
fn names_in_kubernetes_are_checked() {
    check_after_base(
        "coordination = { backend = \"kubernetes\", name = \"shop.\", namespace = \"Shop\" }\n",
        &[
            "p.toml:3:49: coordination.name: expected a name of lower-case letters, digits, \"-\" and \".\", as objects \
             of Kubernetes have, got \"shop.\"",
            "p.toml:3:70: coordination.namespace: expected a name of lower-case letters, digits, \"-\" and \".\", as \
             objects of Kubernetes have, got \"Shop\"",
        ],
    );
    check_after_base(
        "cluster = \"my_shop\"\ncoordination.backend = \"kubernetes\"\n",
        &[
            "p.toml:4:24: coordination.backend: needs coordination.name, because the name of the cluster cannot be part \
           of an object's name",
        ],
    );
}

#[test]
fn odd_but_sound() {
    let loaded = load_texts(
        &[(
            "p.toml",
            "user = \"p\"\n[[server]]\naddress = \"a\"\nweight = 0\n[[user]]\nname = \"x\"\npassword = \"y\"\n\
             [vip]\nport = 3307\ndrain = \"1s\"\n",
        )],
        &[],
        &[],
    );
    let warnings: Vec<_> = loaded.unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "p.toml:4:10: server[0].weight: every server has weight 0, so reads go to the primary",
            "p.toml:10:9: vip.drain: has no effect: vip.address is not set",
        ]
    );
}

fn any_document() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "[[server]]",
        "[listen.rw]",
        "[routing]",
        "[[routing.rule]]",
        "[[user]]",
        "user = \"p\"",
        "servers = [\"a\"]",
        "address = \"a:1\"",
        "weight = 5",
        "= ",
        "\"",
        "\n",
        "\n",
        "\n",
        "[",
        "]",
        "{",
        "}",
        "#",
        "é",
        "'''",
        "5",
        "name = \"x\"",
        "pool.idle_timeout = 5",
        "x.y.z = 1",
        "password_file = \"/\"",
        "1979-05-27",
        ",",
        ":",
        "null",
    ]);
    prop_oneof![".{0,200}", prop::collection::vec(fragment, 0..40).prop_map(|parts| parts.concat()),]
}

proptest! {
    #[test]
    fn no_text_panics(text in any_document(), json in any::<bool>(), value in ".{0,40}") {
        let name = if json { "p.json" } else { "p.toml" };
        let _ = load_texts(&[(name, &text)], &[("POINTSMAN_POOL__MODE", &value)], &[]);
        let key = format!("POINTSMAN_{value}");
        let _ = load_texts(&[("p.toml", BASE)], &[(&key, &text)], &[("--x", &value, &text)]);
    }
}
