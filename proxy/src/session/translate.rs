//! Answers that name server connections by their ids: the ids of our sessions take their place.
//!
//! The one exception to the rule that a server's bytes pass unchanged, so that SHOW PROCESSLIST, CONNECTION_ID()
//! and KILL mean the same session by the same number.

use std::collections::BTreeMap;
use std::io;

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::codec::{Malformed, Reader, put_lenenc_bytes};
use pointsman_protocol::packet::{HEADER_LEN, Header, write_packet};
use pointsman_router::topology::ServerId;

/// Ids of sessions by the server's ids of the connections that they hold.
pub(super) type SessionIds = BTreeMap<(ServerId, u32), u32>;

/// Replaces connection ids in the packets of one text result, given whole and without its last packet.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] when the packets are not a text result.
pub(super) fn rows(
    packets: &[u8],
    capabilities: Capabilities,
    server: ServerId,
    sessions: &SessionIds,
) -> io::Result<Vec<u8>> {
    translate(packets, capabilities, server, sessions)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

fn translate(
    packets: &[u8],
    capabilities: Capabilities,
    server: ServerId,
    sessions: &SessionIds,
) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(packets.len());
    let mut rest = packets;
    let Some(first) = next_packet(&mut rest) else { return Ok(packets.to_vec()) };
    out.extend_from_slice(first);
    let columns = Reader::new(&first[HEADER_LEN..]).lenenc()?;
    let mut holds_id = Vec::new();
    for _ in 0..columns {
        let Some(column) = next_packet(&mut rest) else { return Ok(packets.to_vec()) };
        out.extend_from_slice(column);
        holds_id.push(names_an_id(&column[HEADER_LEN..])?);
    }
    if !capabilities.contains(Capabilities::DEPRECATE_EOF)
        && let Some(eof) = next_packet(&mut rest)
    {
        out.extend_from_slice(eof);
    }
    while let Some(row) = next_packet(&mut rest) {
        let sequence = row[HEADER_LEN - 1];
        let payload = translate_row(&row[HEADER_LEN..], &holds_id, server, sessions)?;
        write_packet(&mut out, sequence, &payload);
    }
    Ok(out)
}

fn next_packet<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let header = Header::parse(rest)?;
    let packet = rest.get(..HEADER_LEN + header.len)?;
    *rest = &rest[packet.len()..];
    Some(packet)
}

/// Catalogue, schema, table and original table stand before the column's name in its definition.
fn names_an_id(definition: &[u8]) -> Result<bool, Malformed> {
    let mut reader = Reader::new(definition);
    for _ in 0..4 {
        reader.lenenc_bytes()?;
    }
    let name = reader.lenenc_bytes()?.to_ascii_lowercase();
    Ok(ID_COLUMNS.iter().any(|column| *column == name))
}

fn translate_row(
    row: &[u8],
    holds_id: &[bool],
    server: ServerId,
    sessions: &SessionIds,
) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(row.len() + 8);
    let mut reader = Reader::new(row);
    for &is_id in holds_id {
        if reader.peek() == Some(NULL_VALUE) {
            out.push(reader.u8()?);
            continue;
        }
        let value = reader.lenenc_bytes()?;
        let thread = is_id.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten();
        match thread.and_then(|thread: u32| sessions.get(&(server, thread))) {
            Some(session) => put_lenenc_bytes(&mut out, session.to_string().as_bytes()),
            None => put_lenenc_bytes(&mut out, value),
        }
    }
    Ok(out)
}

/// Columns of SHOW PROCESSLIST, information_schema.PROCESSLIST, INNODB_TRX and performance_schema.threads.
const ID_COLUMNS: [&[u8]; 3] = [b"id", b"processlist_id", b"trx_mysql_thread_id"];
const NULL_VALUE: u8 = 0xfb;

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Vec<u8> {
        let mut definition = Vec::new();
        for part in ["def", "", "", "", name, ""] {
            put_lenenc_bytes(&mut definition, part.as_bytes());
        }
        definition
    }

    fn row(values: &[&str]) -> Vec<u8> {
        let mut row = Vec::new();
        for value in values {
            put_lenenc_bytes(&mut row, value.as_bytes());
        }
        row
    }

    fn result(rows: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sequence = write_packet(&mut out, 1, &[2]);
        for payload in [column("Id"), column("User")].iter().chain(rows) {
            sequence = write_packet(&mut out, sequence, payload);
        }
        out
    }

    #[test]
    fn only_ids_of_held_connections_are_replaced() {
        let sessions = SessionIds::from([((ServerId(1), 7), 0x8000_0001), ((ServerId(2), 8), 0x8000_0002)]);
        let before = result(&[row(&["7", "7"]), row(&["8", "b"])]);
        let after = result(&[row(&["2147483649", "7"]), row(&["8", "b"])]);
        let translated = rows(&before, Capabilities::DEPRECATE_EOF, ServerId(1), &sessions).unwrap();
        assert_eq!(translated, after);
    }

    #[test]
    fn rows_cut_anywhere_are_an_error_or_left_alone_but_never_a_panic() {
        let whole = result(&[row(&["7", "a"])]);
        for cut in 0..whole.len() {
            let _ = rows(&whole[..cut], Capabilities::DEPRECATE_EOF, ServerId(1), &SessionIds::new());
        }
    }
}
