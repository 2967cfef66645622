//! Environment, flags, conf.d and files with single values.

use super::*;

#[test]
fn the_environment_sets_any_key() {
    let loaded = load_texts(
        &[("p.toml", BASE)],
        &[
            ("POINTSMAN_SERVERS", "x:1, y:2"),
            ("POINTSMAN_PASSWORD", "12345"),
            ("POINTSMAN_ROUTING__READ_WAIT", "50ms"),
            ("POINTSMAN_LISTEN__RW__MAX_CONNECTIONS", "7"),
            ("POINTSMAN_LISTEN__RW__PROXY_PROTOCOL", "10.0.0.0/8,::1"),
            ("POINTSMAN_ROUTING__RULE", r#"[{"name": "r", "user": "a"}]"#),
            ("POINTSMAN_FAILOVER__FENCE_COMMAND", r#"["a,b", "c"]"#),
            // What a cluster's own machinery injects for a service of our name.
            ("POINTSMAN_PORT", "tcp://10.0.0.1:3306"),
            ("POINTSMAN_SERVICE_HOST", "10.0.0.1"),
            ("POINTSMAN_LISTEN", "x"),
            ("POINTSMAN_ENDPOINT", "http://127.0.0.1:9090"),
            ("STATE_DIRECTORY", "/run/a:/run/b"),
        ],
        &[("--user", "user", "flag"), ("--listen", "listen.rw.address", "127.0.0.1:1")],
    );
    let config = loaded.unwrap().config;
    let addresses: Vec<_> = config.servers.iter().map(|server| server.address.as_str()).collect();
    assert_eq!(addresses, ["x:1", "y:2"]);
    assert_eq!((config.user.as_str(), config.password.expose()), ("flag", "12345"));
    assert_eq!(config.routing.read_wait, Duration::from_millis(50));
    assert_eq!((config.listen.rw.max_connections, config.listen.rw.proxy_protocol.len()), (7, 2));
    assert_eq!(config.listen.rw.address, "127.0.0.1:1");
    assert_eq!(config.routing.rules[0].name, "r");
    assert_eq!(config.failover.fence_command, ["a,b", "c"]);
    assert_eq!(config.coordination.state_dir, Path::new("/run/a"));
}

#[test]
fn the_environment_is_checked_too() {
    refused(
        load_texts(
            &[("p.toml", BASE)],
            &[
                ("POINTSMAN_ROUTNG__BALANCE", "adaptive"),
                ("POINTSMAN_POOL__MAX_CONNECTIONS", "x"),
                ("POINTSMAN_LAG__MAXIMUM", "5"),
                ("POINTSMAN_LISTEN__RW__PORT", "5"),
            ],
            &[("--listen", "listen.rw.address", "nonsense"), ("--x", "usr", "y")],
        ),
        &[
            "POINTSMAN_LISTEN__RW__PORT: listen.rw.port: unknown key",
            "POINTSMAN_ROUTNG__BALANCE: routng.balance: unknown key; did you mean \"POINTSMAN_ROUTING__BALANCE\"?",
            "--x: usr: unknown key; did you mean \"user\"?",
            "POINTSMAN_LAG__MAXIMUM: lag.maximum: expected a number and a unit (us, ms, s, m, h, d) as in \"1s\" or \
             \"1m30s\", got the plain number 5; write \"5s\"",
            "POINTSMAN_POOL__MAX_CONNECTIONS: pool.max_connections: expected a number from 1 to 4294967295, got the \
             text \"x\"",
            "--listen: listen.rw.address: expected host:port as in \"db-1:3306\" or \"[::1]:3306\", got \"nonsense\"",
        ],
    );
}

#[test]
fn flags_suffice_without_a_file() {
    let flags = [
        ("--server", "servers", "db-1|db-2:3307"),
        ("--user", "user", "p"),
        ("--listen", "listen.rw.address", "127.0.0.1:4000"),
    ];
    let config = load_texts(&[], &[], &flags).unwrap().config;
    let names: Vec<_> = config.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["db-1", "db-2"]);
}

#[test]
fn files_lie_over_each_other() {
    let base = "servers = [\"a\"]\nuser = \"p\"\n[pool]\nmin_idle = 1\nmax_connections = 5\n[[server]]\naddress = \"b\"\n";
    let more = "servers = [\"c\"]\n[pool]\nmin_idle = 2\n[[server]]\naddress = \"d\"\nweight = 7\n";
    let files =
        [("p.toml", base), ("conf.d/1.toml", more), ("conf.d/2.json", "{\"lag\": {\"maximum\": \"2s\"}}")];
    let loaded = load_texts(&files, &[], &[]).unwrap();
    let config = &loaded.config;
    let addresses: Vec<_> = config.servers.iter().map(|server| server.address.as_str()).collect();
    assert_eq!(addresses, ["c:3306", "b:3306", "d:3306"]);
    assert_eq!((config.pool.min_idle, config.pool.max_connections), (2, 5));
    let check =
        |key: &str, expected: &str| assert_eq!(loaded.origins.place(key).to_string(), expected, "{key}");
    check("pool.min_idle", "conf.d/1.toml:3:12");
    check("pool.max_connections", "p.toml:5:19");
    check("servers[2].weight", "conf.d/1.toml:6:10");
    check("lag.maximum", "conf.d/2.json:1:21");
    check("lag.preferred", "default");
    refused(
        load_texts(&[files[0], ("conf.d/1.toml", "[[server]]\naddress = \"a\"\n")], &[], &[]),
        &[
            "conf.d/1.toml:2:11: server[0].address: the address \"a:3306\" is given twice, first at p.toml:1:12",
        ],
    );
}

fn load_file(path: &Path) -> Result<Loaded, Faults> {
    load(&Sources { file: Some(path.to_owned()), ..Sources::default() })
}

fn messages<T: ToString>(items: &[T], directory: &TempDir) -> Vec<String> {
    let prefix = directory.path().to_string_lossy().into_owned();
    items.iter().map(|item| item.to_string().replace(&prefix, "DIR")).collect()
}

#[test]
fn options_may_lie_in_files() {
    let directory = TempDir::new().unwrap();
    write(&directory, "open", "line 1\nline 2\n\n", 0o644);
    write(&directory, "token", "t\r\n", 0o600);
    write(&directory, "wait", "1s\n", 0o644);
    let file = write(
        &directory,
        "p.toml",
        &format!(
            "{BASE}password_file = \"open\"\nadmin.token_file = \"token\"\nrouting.read_wait_file = \"wait\"\n"
        ),
        0o644,
    );
    let loaded = load_file(&file).unwrap();
    assert_eq!(loaded.config.password.expose(), "line 1\nline 2\n");
    assert_eq!(loaded.config.admin.token.as_ref().map(|token| token.expose()), Some("t"));
    assert_eq!(loaded.config.routing.read_wait, Duration::from_secs(1));
    assert_eq!(
        messages(&loaded.warnings, &directory),
        [
            "DIR/p.toml:3:17: password_file: DIR/open holds a secret and can be read by every user of this machine"
        ]
    );
    assert!(loaded.absent.is_empty());
    assert_eq!(messages(&[loaded.origins.place("password")], &directory), ["DIR/p.toml:3:17"]);
}

#[test]
fn absent_files_are_told_apart_from_faults() {
    let directory = TempDir::new().unwrap();
    let text = "password_file = \"no\"\n[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n[log]\nslow_query_file = \"open\"\n";
    write(&directory, "open", "soon\n", 0o644);
    let file = write(&directory, "p.toml", &format!("{BASE}{text}"), 0o644);
    let Err(Faults(faults)) = load_file(&file) else { panic!("accepted") };
    assert_eq!(
        messages(&faults, &directory),
        [
            "DIR/p.toml:8:19: log.slow_query: expected a number and a unit (us, ms, s, m, h, d) as in \"1s\" or \
         \"1m30s\", got \"soon\""
        ]
    );
    write(&directory, "open", "2s", 0o644);
    let loaded = load_file(&file).unwrap();
    assert_eq!(
        messages(&loaded.absent, &directory),
        [
            "DIR/p.toml:3:17: password_file: cannot read DIR/no: no such file",
            "DIR/p.toml:5:13: tls.cert_file: cannot read DIR/c: no such file",
            "DIR/p.toml:6:12: tls.key_file: cannot read DIR/k: no such file",
        ]
    );
    let environment = variables(&[("POINTSMAN_PASSWORD", "x")]);
    let loaded = load(&Sources { file: Some(file), environment, flags: Vec::new() }).unwrap();
    assert_eq!(loaded.absent.len(), 2);
    check_after_base(
        "password = \"a\"\npassword_file = \"/nowhere\"\n",
        &["p.toml:4:1: password_file: set here and by password; expected one of them"],
    );
}

#[test]
fn files_are_found_and_read() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("p.toml");
    let Err(Faults(faults)) = load_file(&missing) else { panic!("accepted") };
    assert_eq!(messages(&faults, &directory), ["DIR/p.toml: cannot be read: no such file"]);
    let file = write(&directory, "p.toml", &format!("\u{feff}{BASE}"), 0o644);
    write(&directory, "conf.d/20-b.toml", "cluster = \"b\"\n", 0o644);
    write(&directory, "conf.d/10-a.json", "{\"cluster\": \"a\", \"lag\": {\"maximum\": \"3s\"}}", 0o644);
    write(&directory, "conf.d/..data.toml", "cluster = \"hidden\"\n", 0o644);
    write(&directory, "conf.d/README", "not a configuration", 0o644);
    let config = load_file(&file).unwrap().config;
    assert_eq!((config.cluster.as_str(), config.lag.maximum), ("b", Duration::from_secs(3)));
    fs::write(&file, b"\xff").unwrap();
    let Err(Faults(faults)) = load_file(&file) else { panic!("accepted") };
    assert_eq!(messages(&faults, &directory), ["DIR/p.toml: cannot be read: not UTF-8"]);
}
