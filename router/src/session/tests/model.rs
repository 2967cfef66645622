//! Random sessions that share one connection, against a model of a server that executes what is sent.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One connection as a server keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Server {
    flavour: Flavour,
    schema: String,
    role: String,
    autocommit: bool,
    variables: BTreeMap<String, String>,
    user_variables: BTreeMap<String, String>,
}

const LOGIN_CHARSET: &str =
    "character_set_client=login,character_set_results=login,collation_connection=login";

impl Server {
    /// Just logged in; `time_zone` differs from server to server.
    fn new(flavour: Flavour) -> Self {
        let mut server = Self {
            flavour,
            schema: "app".into(),
            role: String::new(),
            autocommit: true,
            variables: BTreeMap::new(),
            user_variables: BTreeMap::new(),
        };
        server.reset();
        server
    }

    fn reset(&mut self) {
        self.autocommit = true;
        self.user_variables.clear();
        self.variables.clear();
        for name in ["time_zone", "sql_mode", "max_x"] {
            self.variables.insert(name.into(), "global".into());
        }
        self.login_charset();
    }

    fn login_charset(&mut self) {
        for name in ["character_set_client", "character_set_results", "collation_connection"] {
            self.set(name, "login");
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        let value = value.trim_matches('\'').to_owned();
        match name {
            "autocommit" => self.autocommit = value == "1",
            // The two follow each other.
            "character_set_connection" | "collation_connection" => {
                self.variables.insert("connection".into(), value);
            }
            _ if value == "DEFAULT" => {
                self.variables.insert(name.into(), "global".into());
            }
            _ => {
                self.variables.insert(name.into(), value);
            }
        }
    }

    fn names(&mut self, charset: &str) {
        for name in ["character_set_client", "character_set_results", "collation_connection"] {
            self.set(name, charset);
        }
    }

    fn execute(&mut self, step: &Step) {
        let sql = match step {
            Step::InitDb(schema) => {
                self.schema = String::from_utf8(schema.to_vec()).unwrap();
                return;
            }
            Step::Query(sql) => String::from_utf8(sql.clone()).unwrap(),
        };
        let list = sql.strip_prefix("SET ").unwrap();
        for element in list.split(',') {
            if let Some(role) = element.strip_prefix("ROLE ") {
                self.role = if role == "DEFAULT" { String::new() } else { role.to_owned() };
            } else if let Some(charset) = element.strip_prefix("NAMES ") {
                self.names(charset);
            } else {
                let (name, value) = element.split_once('=').unwrap();
                match name.strip_prefix("@`") {
                    Some(name) => {
                        self.user_variables.insert(name.trim_matches('`').into(), value.into());
                    }
                    None => self.set(name.trim_start_matches("@@SESSION."), value),
                }
            }
        }
    }
}

/// What a client does.
#[derive(Clone, Debug)]
enum Do {
    Names(u8),
    Variable(u8, u8),
    Charset(u8, u8),
    UserVariable(u8, u8),
    Autocommit(bool),
    Use(u8),
    Role(u8),
    Fail(u8, u8),
    Pin,
    Reset,
}

fn any_do() -> impl Strategy<Value = Do> {
    prop_oneof![
        3 => (0..3_u8).prop_map(Do::Names),
        4 => (0..3_u8, 0..4_u8).prop_map(|(name, value)| Do::Variable(name, value)),
        3 => (0..4_u8, 0..3_u8).prop_map(|(name, value)| Do::Charset(name, value)),
        2 => (0..3_u8, 0..3_u8).prop_map(|(name, value)| Do::UserVariable(name, value)),
        1 => any::<bool>().prop_map(Do::Autocommit),
        1 => (0..2_u8).prop_map(Do::Use),
        1 => (0..2_u8).prop_map(Do::Role),
        1 => (0..3_u8, 0..3_u8).prop_map(|(name, value)| Do::Fail(name, value)),
        1 => Just(Do::Pin),
        1 => Just(Do::Reset),
    ]
}

const VARIABLES: [&str; 3] = ["time_zone", "sql_mode", "max_x"];
const VALUES: [&str; 4] = ["'one'", "'two'", "3", "DEFAULT"];
const CHARSETS: [&str; 3] = ["latin1", "utf8mb4", "gbk"];
const CHARSET_VARIABLES: [&str; 4] =
    ["character_set_client", "character_set_results", "character_set_connection", "collation_connection"];

/// A client: its session as tracked, and a server of its own on which the same was done.
struct Client {
    session: SessionState,
    alone: Server,
}

impl Client {
    fn new(flavour: Flavour) -> Self {
        let fresh = Fresh {
            flavour,
            schema: Some(b"app".to_vec()),
            variables: vec![("sql_mode".into(), "'primary'".into())],
            ..Fresh::default()
        };
        let mut client = Self { session: SessionState::new(fresh), alone: Server::new(flavour) };
        client.alone.set("sql_mode", "'primary'");
        client
    }

    /// Does it on the shared connection, which is in this session's state, and alone.
    fn act(&mut self, what: &Do, server: &mut Server, connection: &mut ConnectionState) {
        let (action, error) = match *what {
            Do::Names(charset) => {
                let charset = CHARSETS[usize::from(charset)];
                [&mut *server, &mut self.alone].into_iter().for_each(|on| on.names(charset));
                (Some(names(&format!("SET NAMES {charset}"), charset)), None)
            }
            Do::Variable(name, value) => {
                (Some(self.set(VARIABLES, name, VALUES[usize::from(value)], server)), None)
            }
            Do::Charset(name, value) => {
                (Some(self.set(CHARSET_VARIABLES, name, CHARSETS[usize::from(value)], server)), None)
            }
            Do::UserVariable(name, value) => {
                let (name, value) = (format!("v{name}"), value.to_string());
                for on in [&mut *server, &mut self.alone] {
                    on.user_variables.insert(name.clone(), value.clone());
                }
                (Some(user_variable(&name, &value)), None)
            }
            Do::Autocommit(on) => {
                (server.autocommit, self.alone.autocommit) = (on, on);
                (Some(Action::SetAutocommit(on)), None)
            }
            Do::Use(schema) => {
                let schema = format!("schema{schema}");
                (server.schema, self.alone.schema) = (schema.clone(), schema.clone());
                (Some(Action::Use(schema.as_bytes().into())), None)
            }
            Do::Role(role) => {
                let role = format!("role{role}");
                (server.role, self.alone.role) = (role.clone(), role.clone());
                (Some(Action::SetRole { sql: format!("SET ROLE {role}").into() }), None)
            }
            Do::Fail(name, value) => {
                (Some(variable(VARIABLES[usize::from(name)], VALUES[usize::from(value)])), Some(1231))
            }
            Do::Pin => return self.pin_and_leave(server, connection),
            Do::Reset => return self.reset(server, connection),
        };
        let observed = Observed { error, autocommit: server.autocommit, has_status: error.is_none(), ..ok() };
        self.session.observe(&set(action.into_iter().collect()), &observed, NOW);
        // Without autocommit a failed statement may have begun a transaction; here it is ended at once.
        let ended = Observed { error: None, has_status: true, ..observed };
        self.session.observe(&intent(Kind::Rollback), &ended, NOW);
        connection.adopt(&self.session);
    }

    fn set<const N: usize>(
        &mut self,
        among: [&str; N],
        name: u8,
        value: &str,
        server: &mut Server,
    ) -> Action {
        let name = among[usize::from(name)];
        [&mut *server, &mut self.alone].into_iter().for_each(|on| on.set(name, value));
        variable(name, value)
    }

    /// Leaves something unknown on the connection and goes away; another client of the same kind comes.
    fn pin_and_leave(&mut self, server: &mut Server, connection: &mut ConnectionState) {
        server.set("sql_mode", "'unknown'");
        server.user_variables.insert("left".into(), "behind".into());
        self.session.observe(&with(Kind::Call, Effects::UNKNOWN_STATE), &ok(), NOW);
        connection.adopt(&self.session);
        *self = Self::new(server.flavour);
    }

    /// COM_RESET_CONNECTION of the client: on the connection, then the proxy's own base state.
    fn reset(&mut self, server: &mut Server, connection: &mut ConnectionState) {
        for on in [&mut *server, &mut self.alone] {
            on.reset();
        }
        self.alone.set("sql_mode", "'primary'");
        connection.after_reset();
        self.session.reset();
    }
}

/// Brings the connection into the client's state; a new one where that is not possible.
fn sync(client: &Client, server: &mut Server, connection: &mut ConnectionState) {
    let steps = match connection.plan(&client.session) {
        SyncPlan::Nothing => Vec::new(),
        SyncPlan::Apply(steps) => steps,
        SyncPlan::ResetThenApply(steps) => {
            server.reset();
            steps
        }
        SyncPlan::Unusable => {
            *server = Server::new(server.flavour);
            *connection = ConnectionState::fresh(Some(b"app")).with_login_charset(LOGIN_CHARSET);
            let SyncPlan::Apply(steps) = connection.plan(&client.session) else {
                panic!("a new connection cannot be used");
            };
            steps
        }
    };
    steps.iter().for_each(|step| server.execute(step));
    connection.adopt(&client.session);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_shared_connection_is_as_each_session_left_it(
        mysql in any::<bool>(),
        turns in proptest::collection::vec((0..3_usize, any_do()), 1..60),
    ) {
        let flavour = if mysql { Flavour::Mysql } else { Flavour::Mariadb };
        let mut clients = [Client::new(flavour), Client::new(flavour), Client::new(flavour)];
        let mut server = Server::new(flavour);
        let mut connection = ConnectionState::fresh(Some(b"app")).with_login_charset(LOGIN_CHARSET);
        for (who, what) in &turns {
            let client = &mut clients[*who];
            sync(client, &mut server, &mut connection);
            prop_assert_eq!(&server, &client.alone);
            prop_assert_eq!(connection.fingerprint(), client.session.fingerprint());
            client.act(what, &mut server, &mut connection);
        }
    }
}
