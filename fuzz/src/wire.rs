//! Frames, the basic packets, commands and PROXY headers.

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::command::{BulkBody, Command, ExecuteBody};
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::ok::{EofPacket, OkPacket};
use pointsman_protocol::packet::{HEADER_LEN, Header, write_packet};
use pointsman_protocol::proxy_protocol::{ProxyHeader, ProxyParse};

use crate::option;

/// A header is written as it was read, and a payload comes out of its frames as it went in.
pub fn packet(data: &[u8]) {
    if let Some(header) = Header::parse(data) {
        assert_eq!(header.to_bytes(), data[..HEADER_LEN]);
    }
    let (sequence, payload) = option(data);
    let mut frames = Vec::new();
    let next = write_packet(&mut frames, sequence, payload);
    let (mut rest, mut read, mut expected) = (&frames[..], Vec::new(), sequence);
    while let Some(header) = Header::parse(rest) {
        assert_eq!(header.sequence, expected);
        expected = expected.wrapping_add(1);
        read.extend_from_slice(&rest[HEADER_LEN..header.frame_len()]);
        rest = &rest[header.frame_len()..];
        assert_eq!(header.continues(), !rest.is_empty());
    }
    assert_eq!((next, &read[..], rest), (expected, payload, &[][..]));
}

/// Capability sets that change how packets are read.
fn capabilities(option: u8) -> Capabilities {
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::PROTOCOL_41, option & 1 != 0);
    capabilities.set(Capabilities::SESSION_TRACK, option & 2 != 0);
    capabilities.set(Capabilities::TRANSACTIONS, option & 4 != 0);
    capabilities.set(Capabilities::QUERY_ATTRIBUTES, option & 8 != 0);
    capabilities
}

/// What is read is written so that it reads the same.
pub fn ok(data: &[u8]) {
    let (chosen, payload) = option(data);
    let capabilities = capabilities(chosen);
    if let Ok(ok) = OkPacket::parse(payload, capabilities) {
        assert!(ok.changes().count() <= payload.len());
        let mut out = Vec::new();
        ok.write(&mut out, payload[0], capabilities);
        let again = OkPacket::parse(&out, capabilities).expect("a packet that was written");
        assert_eq!(again.info, ok.info);
        assert_eq!(again.session_state, ok.session_state);
        assert_eq!((again.affected_rows, again.last_insert_id), (ok.affected_rows, ok.last_insert_id));
    }
    if let Ok(eof) = EofPacket::parse(payload) {
        let mut out = Vec::new();
        eof.write(&mut out);
        assert_eq!(EofPacket::parse(&out), Ok(eof));
    }
}

/// What is read is written as it was.
pub fn err(data: &[u8]) {
    let (chosen, payload) = option(data);
    let capabilities = capabilities(chosen);
    if let Ok(err) = ErrPacket::parse(payload, capabilities) {
        let mut out = Vec::new();
        err.write(&mut out, capabilities);
        assert_eq!(out, payload);
    }
}

/// A statement's text is the end of its packet, and types fit where a body says that they belong.
pub fn command(data: &[u8]) {
    let (chosen, payload) = option(data);
    let capabilities = capabilities(chosen);
    let Ok(command) = Command::parse(payload, &capabilities) else { return };
    let _grammar = command.grammar();
    match command {
        Command::Query(query) => {
            assert!(payload.ends_with(query.sql));
            assert_eq!(query.attributes.iter().count(), query.attributes.len());
        }
        Command::StmtExecute(execute) => {
            let parameters = u16::from(chosen >> 4);
            let Ok(body) = ExecuteBody::parse(&execute, parameters, capabilities) else { return };
            let mut out = Vec::new();
            body.write_with_types(payload, &payload[body.types.clone()], &mut out);
            if body.new_params_bound && payload[body.types.start - 1] == 1 {
                assert_eq!(out, payload);
            }
        }
        Command::StmtBulkExecute { flags, rest, .. } => {
            let Ok(body) = BulkBody::parse(flags, rest, u16::from(chosen >> 4)) else { return };
            let mut out = Vec::new();
            body.write_with_types(payload, flags, &payload[body.types.clone()], &mut out);
            assert_eq!(body.types_sent, out == payload);
        }
        _other => {}
    }
}

/// A header lies within the bytes, and what follows it does not change it.
pub fn proxy_protocol(data: &[u8]) {
    match ProxyHeader::parse(data) {
        Ok(ProxyParse::Header(header)) => {
            assert!(header.len <= data.len());
            assert_eq!(ProxyHeader::parse(&data[..header.len]), Ok(ProxyParse::Header(header)));
            assert_eq!(ProxyHeader::parse(&data[..header.len - 1]), Ok(ProxyParse::Incomplete));
        }
        Ok(ProxyParse::Incomplete | ProxyParse::Absent) | Err(_) => {}
    }
}
