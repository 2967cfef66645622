use proptest::prelude::*;

use super::*;

const PLAIN: Capabilities = Capabilities::PROTOCOL_41;
const TRACKED: Capabilities = PLAIN.union(Capabilities::SESSION_TRACK);

#[test]
fn packets_of_servers() {
    let done = OkPacket { status: Status::AUTOCOMMIT, ..OkPacket::default() };
    check(b"\0\0\0\x02\0\0\0", PLAIN, done);
    check(b"\0\0\0\x02\0\0\0", TRACKED, done);
    check(
        b"\xfe\0\0\x22\0\x01\0",
        TRACKED,
        OkPacket { warnings: 1, status: Status::from_bits_retain(0x22), ..done },
    );
    let inserted = OkPacket { affected_rows: 2, info: b"Records: 2  Duplicates: 0  Warnings: 0", ..done };
    let payload = b"\0\x02\0\x02\0\0\0\x26Records: 2  Duplicates: 0  Warnings: 0";
    check(payload, PLAIN, inserted);
    check(payload, TRACKED, inserted);
    let large = OkPacket { affected_rows: 70_000, last_insert_id: u64::MAX, ..done };
    check(b"\0\xfd\x70\x11\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x02\0\0\0", PLAIN, large);
    // The manual's form of the text, as other programs that speak the protocol write it.
    let text = OkPacket { info: b"no length", ..done };
    assert_eq!(OkPacket::parse(b"\0\0\0\x02\0\0\0no length", PLAIN), Ok(text));
    let indented = OkPacket { info: b" text with a first byte that could be its length", ..done };
    let payload = [b"\0\0\0\x02\0\0\0", indented.info].concat();
    assert_eq!(OkPacket::parse(&payload, PLAIN), Ok(indented));
    // Before 4.1 there were no warnings, and without transactions no status.
    check(b"\0\x01\0\x02\0", Capabilities::TRANSACTIONS, OkPacket { affected_rows: 1, ..done });
    check(b"\0\x01\0", Capabilities::empty(), OkPacket { affected_rows: 1, ..OkPacket::default() });
}

#[test]
fn session_changes_of_servers() {
    check_changes(b"\0\0\0\x02\x40\0\0\0\x07\x01\x05\x04test", &[SessionChange::Schema(b"test")]);
    // MariaDB 10.11: SET autocommit=0, SET character_set_results=NULL.
    check_changes(
        b"\0\0\0\0\x40\0\0\0\x2a\0\x0f\x0aautocommit\x03OFF\0\x17\x15character_set_results\0",
        &[
            SessionChange::SystemVariable { name: b"autocommit", value: b"OFF" },
            SessionChange::SystemVariable { name: b"character_set_results", value: b"" },
        ],
    );
    // MySQL 9.7: INSERT with session_track_gtids, then BEGIN.
    check_changes(
        b"\0\x01\0\x02\x40\0\0\0\x2a\x03\x28\0\x269dd7b3c1-e854-11f1-a738-02fc00000001:4",
        &[SessionChange::Gtids(b"9dd7b3c1-e854-11f1-a738-02fc00000001:4")],
    );
    check_changes(
        b"\0\0\0\x03\x40\0\0\0\x0b\x05\x09\x08T_______",
        &[SessionChange::TransactionState(b"T_______")],
    );
    check_changes(
        b"\xfe\0\0\x02\x40\0\0\x04text\x19\x04\x13\x12START TRANSACTION;\x02\x02\x011",
        &[SessionChange::TransactionCharacteristics(b"START TRANSACTION;"), SessionChange::StateChange(true)],
    );
    check_changes(b"\0\0\0\0\x40\0\0\0\x03\x2a\x01x", &[SessionChange::Unknown]);
    // The flag may be set without anything behind it, and is of no concern without the capability.
    check_changes(b"\0\0\0\x02\x40\0\0", &[]);
    check_changes(b"\0\0\0\x02\0\0\0\0\x07\x01\x05\x04test", &[]);
    let ok = OkPacket::parse(b"\0\0\0\x02\x40\0\0", PLAIN).expect("a good packet");
    assert_eq!(ok.changes().count(), 0);
}

#[test]
fn a_client_without_trackers_gets_none() {
    let ok = OkPacket::parse(b"\0\0\0\x02\x40\0\0\x01i\x07\x01\x05\x04test", TRACKED).expect("a good packet");
    let mut out = Vec::new();
    ok.write(&mut out, OkPacket::HEADER, PLAIN);
    assert_eq!(out, b"\0\0\0\x02\0\0\0\x01i");
}

#[test]
fn what_is_no_ok_packet() {
    for payload in [
        &b""[..],
        b"\x01\0\0\x02\0\0\0",
        b"\xff\0\0\x02\0\0\0",
        b"\0\0\0\x02\0\0",
        b"\0\xfb\0\x02\0\0\0",
        b"\0\0\xff\x02\0\0\0",
        b"\0\0\0\x02\0\0\0\x05text",
        b"\0\0\0\x02\x40\0\0\0\x08\x01\x05\x04test",
        b"\0\0\0\x02\x40\0\0\0\x07\x01\x05\x05test",
        b"\0\0\0\x02\x40\0\0\0\x02\x01\0",
        b"\0\0\0\x02\x40\0\0\0\x01\x01",
        b"\0\0\0\x02\x40\0\0\0\xff",
    ] {
        let parsed = OkPacket::parse(payload, TRACKED);
        assert!(parsed.is_err(), "{payload:02x?}: {parsed:?}");
    }
}

#[test]
fn end_of_rows() {
    let eof = EofPacket { warnings: 1, status: Status::from_bits_retain(0x22) };
    let payload = [0xfe, 1, 0, 0x22, 0];
    assert_eq!(EofPacket::parse(&payload), Ok(eof));
    let mut out = Vec::new();
    eof.write(&mut out);
    assert_eq!(out, payload);
    assert_eq!(out.len(), EofPacket::LEN);
    for len in 0..payload.len() {
        assert!(EofPacket::parse(&payload[..len]).is_err());
    }
    assert_eq!(EofPacket::parse(&[0, 0, 0, 0, 0]), Err(Malformed::Header { expected: "EOF", got: 0 }));
}

proptest! {
    #[test]
    fn round_trip(
        affected_rows: u64, last_insert_id: u64, status: u16, warnings: u16, info: Vec<u8>, schema: Vec<u8>,
        tracked: bool, header in prop::sample::select(vec![OkPacket::HEADER, EofPacket::HEADER]),
    ) {
        let capabilities = if tracked { TRACKED } else { PLAIN };
        let mut status = Status::from_bits_retain(status);
        status.set(Status::SESSION_STATE_CHANGED, tracked);
        let mut change = Vec::new();
        if tracked {
            let mut body = Vec::new();
            put_lenenc_bytes(&mut body, &schema);
            change.push(TRACK_SCHEMA);
            put_lenenc_bytes(&mut change, &body);
        }
        let ok = OkPacket { affected_rows, last_insert_id, status, warnings, info: &info, session_state: &change };
        let mut out = Vec::new();
        ok.write(&mut out, header, capabilities);
        prop_assert_eq!(OkPacket::parse(&out, capabilities), Ok(ok));
        let changes: Vec<_> = ok.changes().collect();
        prop_assert_eq!(changes, if tracked { vec![SessionChange::Schema(&schema)] } else { vec![] });
    }

    #[test]
    fn junk_is_an_error_or_a_packet(junk in prop::collection::vec(any::<u8>(), 0..80)) {
        let payload = [&b"\0\0\0\x02\x40\0\0\0"[..], &junk].concat();
        if let Ok(ok) = OkPacket::parse(&payload, TRACKED) {
            prop_assert!(ok.changes().count() <= junk.len());
        }
        let _either = OkPacket::parse(&junk, TRACKED);
        let _either = OkPacket::parse(&junk, Capabilities::empty());
    }
}

/// The packet reads as `expected` and is written as it was; cut, it is an error or, where only its end may be left
/// out, another packet.
#[track_caller]
fn check(payload: &[u8], capabilities: Capabilities, expected: OkPacket<'_>) {
    assert_eq!(OkPacket::parse(payload, capabilities), Ok(expected), "{payload:02x?}");
    let mut out = Vec::new();
    expected.write(&mut out, payload[0], capabilities);
    assert_eq!(out, payload);
    for len in 0..payload.len() {
        let cut = OkPacket::parse(&payload[..len], capabilities);
        assert!(cut.is_err() || cut != Ok(expected), "{payload:02x?} cut to {len}");
    }
}

#[track_caller]
fn check_changes(payload: &[u8], expected: &[SessionChange<'_>]) {
    let ok = OkPacket::parse(payload, TRACKED).expect("a good packet");
    let changes: Vec<_> = ok.changes().collect();
    assert_eq!(changes, expected);
}
