//! What every session on a server starts with: our trackers, and the certainty of whose session it is.

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::codec::{Malformed, Reader};
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::packet::write_packet;
use pointsman_router::intent::Flavour;

use super::authenticate::{AuthenticateError, refused};
use super::inject::query_payload;
use crate::buffer::Lane;
use crate::exchange::Exchange;

/// What a fresh session says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseSession {
    /// CURRENT_USER(): the account that the server took the login for.
    pub account: Vec<u8>,
    /// What the server made of the collation that the login asked for.
    pub character_set: CharacterSet,
}

/// The character set of a session as SQL text, by the names that its server has for it; empty where it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CharacterSet {
    client: String,
    results: String,
    collation: String,
}

impl CharacterSet {
    /// The elements of a SET list that put it back; empty where nothing is known.
    pub fn elements(&self) -> String {
        let Self { client, results, collation } = self;
        // Only NAMES says the collation of results too, which MySQL names in the description of columns.
        if !client.is_empty() && client == results && is_of(collation, client) {
            return format!("NAMES {client} COLLATE {collation}");
        }
        let names = [
            ("character_set_client", client),
            ("character_set_results", results),
            ("collation_connection", collation),
        ];
        let known = names.into_iter().filter(|(_, name)| !name.is_empty());
        known.map(|(variable, name)| format!("{variable} = {name}")).collect::<Vec<_>>().join(", ")
    }
}

/// Whether a collation is one of a character set; with or without quotes.
pub fn is_of(collation: &str, charset: &str) -> bool {
    let charset = charset.trim_matches('\'');
    let rest = collation.trim_matches('\'').strip_prefix(charset);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The statement that sets our trackers, and the character set that the login asked for.
///
/// To be sent after every COM_RESET_CONNECTION and COM_CHANGE_USER, which put the server's own defaults back.
pub fn base_set_sql(flavour: Flavour, character_set: &CharacterSet) -> String {
    let mut sql = trackers_sql(flavour);
    let elements = character_set.elements();
    if !elements.is_empty() {
        sql.push_str(", ");
        sql.push_str(&elements);
    }
    sql
}

/// The same for a login: the server has set the character set by the collation's number where that fits into the one
/// byte of the login.
fn login_set_sql(flavour: Flavour, collation: u16) -> String {
    let mut sql = trackers_sql(flavour);
    if collation > u16::from(u8::MAX) {
        let look_up = |column, variable| {
            format!(
                ", {variable} = IFNULL((SELECT {column} FROM information_schema.COLLATIONS WHERE ID = {collation}), \
                 @@{variable})"
            )
        };
        sql.push_str(&look_up("CHARACTER_SET_NAME", "character_set_client"));
        sql.push_str(&look_up("CHARACTER_SET_NAME", "character_set_results"));
        sql.push_str(&look_up("COLLATION_NAME", "collation_connection"));
    }
    sql
}

fn trackers_sql(flavour: Flavour) -> String {
    match flavour {
        Flavour::Mysql => format!(
            "SET session_track_gtids = OWN_GTID, session_track_schema = ON, session_track_state_change = ON, \
             session_track_transaction_info = OFF, session_track_system_variables = '{MYSQL_TRACKED}'"
        ),
        Flavour::Mariadb => format!(
            "SET session_track_schema = ON, session_track_state_change = ON, \
             session_track_transaction_info = OFF, session_track_system_variables = '{MARIADB_TRACKED}'"
        ),
    }
}

/// Sets our trackers and asks whose session it is, in one round trip.
///
/// # Errors
///
/// [`AuthenticateError::Refused`] when the server answers either with an error. Not cancel safe.
pub async fn begin(
    lane: &mut Lane,
    flavour: Flavour,
    capabilities: Capabilities,
    collation: u16,
) -> Result<BaseSession, AuthenticateError> {
    let mut packets = Vec::new();
    for sql in [&login_set_sql(flavour, collation), WHO_SQL] {
        write_packet(&mut packets, 0, &query_payload(sql.as_bytes(), capabilities));
    }
    lane.write_all(&packets).await?;
    let set = next_answer(lane).read().await?;
    // Both answers are read whatever they are: an expired password refuses the statements, not the connection.
    let who = read_who(&mut next_answer(lane), capabilities).await;
    if set.first() == Some(&ErrPacket::HEADER) {
        return Err(refused(&set, capabilities));
    }
    who
}

/// The account in hexadecimal digits, which look the same in every character set.
const WHO_SQL: &str =
    "SELECT HEX(CURRENT_USER()), @@character_set_client, @@character_set_results, @@collation_connection";

fn next_answer(lane: &mut Lane) -> Exchange<'_> {
    Exchange { lane, sequence: 1, limit: MAX_ANSWER_BYTES }
}

/// Reads the one row of [`WHO_SQL`]: a column count, the columns, the row, and what ends each.
async fn read_who(
    answer: &mut Exchange<'_>,
    capabilities: Capabilities,
) -> Result<BaseSession, AuthenticateError> {
    let head = answer.read().await?;
    if head.first() == Some(&ErrPacket::HEADER) {
        return Err(refused(&head, capabilities));
    }
    let ends = if capabilities.contains(Capabilities::DEPRECATE_EOF) { 0 } else { 1 };
    for _ in 0..WHO_COLUMNS + ends {
        answer.read().await?;
    }
    let row = answer.read().await?;
    if row.first() == Some(&ErrPacket::HEADER) {
        return Err(refused(&row, capabilities));
    }
    let who = parse_who(&row)?;
    answer.read().await?;
    Ok(who)
}

fn parse_who(row: &[u8]) -> Result<BaseSession, Malformed> {
    let mut reader = Reader::new(row);
    let account = from_hex(reader.lenenc_bytes()?)?;
    let character_set = CharacterSet {
        client: read_name(&mut reader)?,
        results: read_name(&mut reader)?,
        collation: read_name(&mut reader)?,
    };
    Ok(BaseSession { account, character_set })
}

/// A name of a character set or collation, or NULL, as it stands in a statement.
fn read_name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    if reader.peek() == Some(NULL) {
        reader.u8()?;
        return Ok(String::from("NULL"));
    }
    let name = reader.lenenc_bytes()?;
    let plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    Ok(if plain { format!("'{}'", String::from_utf8_lossy(name)) } else { String::new() })
}

fn from_hex(digits: &[u8]) -> Result<Vec<u8>, Malformed> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    digits
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or(Malformed::Field { expected: "hexadecimal digits", got: digits.len() as u64 })
}

const NULL: u8 = 0xfb;
const WHO_COLUMNS: usize = 4;
/// No packet of either answer is longer.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

const MYSQL_TRACKED: &str = "autocommit,character_set_client,character_set_connection,character_set_results,\
    collation_connection,time_zone,sql_mode,transaction_isolation,transaction_read_only";
/// Unlike MySQL, MariaDB refuses a list with an unknown name.
const MARIADB_TRACKED: &str = "autocommit,character_set_client,character_set_connection,character_set_results,\
    collation_connection,time_zone,sql_mode,tx_isolation,tx_read_only,last_gtid";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        check(
            b"\x086E314025\x07utf8mb3\xfb\x12utf8mb3_unicode_ci",
            Some(("'utf8mb3'", "NULL", "'utf8mb3_unicode_ci'")),
        );
        check(b"\x086E314025\x06latin1\x06binary\x06binary", Some(("'latin1'", "'binary'", "'binary'")));
        check(b"\x086E314025\x04a'--\x06binary\x06binary", Some(("", "'binary'", "'binary'")));
        check(b"\x0440 5\x0233\x01a\x01b", None);
        check(b"\x0340 \x0233\x01a\x01b", None);
        check(b"\x086E3140", None);
        check(b"\x086E314025\x06latin1\x06binary", None);
        check(b"", None);
    }

    #[track_caller]
    fn check(row: &[u8], expected: Option<(&str, &str, &str)>) {
        let expected = expected.map(|(client, results, collation)| BaseSession {
            account: b"n1@%".to_vec(),
            character_set: CharacterSet {
                client: client.into(),
                results: results.into(),
                collation: collation.into(),
            },
        });
        assert_eq!(parse_who(row).ok(), expected);
    }

    #[test]
    fn the_character_set_is_put_back_where_it_is_known() {
        let utf8 = CharacterSet {
            client: String::from("'utf8mb4'"),
            results: String::from("NULL"),
            collation: String::from("'utf8mb4_unicode_ci'"),
        };
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            assert_eq!(base_set_sql(flavour, &CharacterSet::default()), trackers_sql(flavour));
            assert!(base_set_sql(flavour, &utf8).ends_with(
                ", character_set_client = 'utf8mb4', character_set_results = NULL, \
                 collation_connection = 'utf8mb4_unicode_ci'"
            ));
            let general = CharacterSet { results: String::from("'utf8mb4'"), ..utf8.clone() };
            let sql = base_set_sql(flavour, &general);
            assert!(sql.ends_with(", NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci'"), "{sql}");
            assert_eq!(login_set_sql(flavour, 224), trackers_sql(flavour));
            assert!(login_set_sql(flavour, 2304).contains("WHERE ID = 2304"));
        }
    }
}
