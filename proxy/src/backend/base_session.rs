//! What every session on a server starts with: our trackers, and the certainty of whose session it is.

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::codec::{Malformed, Reader};
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::packet::write_packet;
use pointsman_router::intent::Flavour;

use super::authenticate::{AuthenticateError, refused};
use crate::buffer::Lane;
use crate::exchange::Exchange;

/// The statement that sets our trackers, and the character set that the login asked for.
///
/// To be sent after every login, COM_RESET_CONNECTION and COM_CHANGE_USER: all of them put the server's own defaults
/// back. `collation`: an id that the server knows, or 0 to leave the character set as it is.
pub fn base_set_sql(flavour: Flavour, collation: u16) -> String {
    let mut sql = match flavour {
        Flavour::Mysql => format!(
            "SET session_track_gtids = OWN_GTID, session_track_schema = ON, session_track_state_change = ON, \
             session_track_transaction_info = OFF, session_track_system_variables = '{MYSQL_TRACKED}'"
        ),
        Flavour::Mariadb => format!(
            "SET session_track_schema = ON, session_track_state_change = ON, \
             session_track_transaction_info = OFF, session_track_system_variables = '{MARIADB_TRACKED}'"
        ),
    };
    if collation != 0 {
        // By number: the names of collations differ between versions, their numbers do not.
        let set = format!(
            ", character_set_client = {collation}, character_set_results = {collation}, collation_connection = {collation}"
        );
        sql.push_str(&set);
    }
    sql
}

/// What a fresh session says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseSession {
    /// CURRENT_USER(): the account that the server took the login for.
    pub account: Vec<u8>,
    /// The id of `collation_connection`; 0 where the server does not say.
    pub collation: u16,
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
    // What fits into the login's one byte has been set by the login, as far as the server knows it.
    let to_set = if collation > u16::from(u8::MAX) { collation } else { 0 };
    let mut packets = Vec::new();
    for sql in [&base_set_sql(flavour, to_set), WHO_SQL] {
        write_packet(&mut packets, 0, &query_payload(sql, capabilities));
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
const WHO_SQL: &str = "SELECT HEX(CURRENT_USER()), (SELECT ID FROM information_schema.COLLATIONS \
    WHERE COLLATION_NAME = @@collation_connection)";

fn next_answer(lane: &mut Lane) -> Exchange<'_> {
    Exchange { lane, sequence: 1, limit: MAX_ANSWER_BYTES }
}

fn query_payload(sql: &str, capabilities: Capabilities) -> Vec<u8> {
    let mut payload = vec![COM_QUERY];
    if capabilities.contains(Capabilities::QUERY_ATTRIBUTES) {
        // No attributes, in one set.
        payload.extend_from_slice(&[0, 1]);
    }
    payload.extend_from_slice(sql.as_bytes());
    payload
}

/// Reads the one row of [`WHO_SQL`]: a column count, two columns, the row, and what ends each.
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
    let collation = match reader.peek() {
        Some(NULL) => 0,
        Some(_) | None => {
            let digits = reader.lenenc_bytes()?;
            std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
        }
    };
    Ok(BaseSession { account, collation })
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

const COM_QUERY: u8 = 0x03;
const NULL: u8 = 0xfb;
const WHO_COLUMNS: usize = 2;
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
        check(b"\x086E314025\x0233", Some(("n1@%", 33)));
        check(b"\x086E314025\xfb", Some(("n1@%", 0)));
        check(b"\x0440 5\x0233", None);
        check(b"\x0340 \x0233", None);
        check(b"\x086E3140", None);
        check(b"", None);
    }

    #[track_caller]
    fn check(row: &[u8], expected: Option<(&str, u16)>) {
        let found = parse_who(row).ok();
        let expected = expected
            .map(|(account, collation)| BaseSession { account: account.as_bytes().to_vec(), collation });
        assert_eq!(found, expected);
    }

    #[test]
    fn the_character_set_is_named_where_it_is_known() {
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            assert!(!base_set_sql(flavour, 0).contains("collation_connection ="));
            assert!(base_set_sql(flavour, 45).ends_with("collation_connection = 45"));
        }
    }
}
