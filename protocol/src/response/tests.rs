use proptest::prelude::*;

use super::*;
use crate::packet::write_packet;

// Payloads of MariaDB 10.11 and MySQL 9.7.
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const OK_MORE: &[u8] = &[0, 1, 0, 0x0a, 0, 0, 0];
const ONE: &[u8] = &[1];
const COLUMN: &[u8] = b"\x03def\x04test\x01t\x01t\x01a\x01a\x0c?\0\x0b\0\0\0\x03\0\0\0\0\0";
const FIELD: &[u8] = b"\x03def\x04test\x01t\x01t\x01a\x01a\x0c?\0\x0b\0\0\0\x03\0\0\0\0\0\xfb";
const TEXT_ROW: &[u8] = b"\x011";
const NULL_ROW: &[u8] = &[0xfb];
const BINARY_ROW: &[u8] = &[0, 0, 1, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 0x22, 0];
const EOF_MORE: &[u8] = &[0xfe, 0, 0, 0x0a, 0];
const EOF_CURSOR: &[u8] = &[0xfe, 0, 0, 0x62, 0];
const EOF_LAST_ROW: &[u8] = &[0xfe, 0, 0, 0x82, 0];
const OK_EOF: &[u8] = &[0xfe, 0, 0, 0x22, 0, 0, 0];
const OK_EOF_MORE: &[u8] = &[0xfe, 0, 0, 0x0a, 0, 0, 0];
const OK_EOF_CURSOR: &[u8] = &[0xfe, 0, 0, 0x62, 0, 0, 0];
const OK_EOF_LAST_ROW: &[u8] = &[0xfe, 0, 0, 0x82, 0, 0, 0];
const OK_EOF_TRACKED: &[u8] = b"\xfe\0\0\x08\x40\0\0\0\x13\0\x11\x0cstatement_id\x03154";
const OUT_PARAMS: &[u8] = &[0xfe, 0, 0, 0x08, 0x10];
const ERR: &[u8] = b"\xff\x29\x04#42000Query was empty";
const PROGRESS: &[u8] = b"\xff\xff\xff\x01\x01\x02\x9a\x02\0\x11copy to tmp table";
const FILE: &[u8] = b"\xfb/nope";
const UPTIME: &[u8] = b"Uptime: 41  Threads: 1  Questions: 12";

/// What the walker has to say about the packet at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    End(EndKind, bool),
    Prepare,
    File,
    Done,
}

use EndKind::{Eof, Err as Error, Ok as Done, OkEof};
use Event::{End, File, Prepare};

#[test]
fn results_without_rows() {
    for deprecate_eof in [false, true] {
        check(Grammar::Query, deprecate_eof, &[OK], &[(0, End(Done, true))]);
        check(Grammar::Query, deprecate_eof, &[ERR], &[(0, End(Error, true))]);
        check(
            Grammar::Query,
            deprecate_eof,
            &[OK_MORE, OK_MORE, ERR],
            &[(0, End(Done, false)), (1, End(Done, false)), (2, End(Error, true))],
        );
        check(Grammar::Query, deprecate_eof, &[PROGRESS, PROGRESS, OK], &[(2, End(Done, true))]);
    }
}

#[test]
fn rows_with_eof() {
    let query = |packets: &[&[u8]], events: &[(usize, Event)]| check(Grammar::Query, false, packets, events);
    query(&[ONE, COLUMN, EOF, TEXT_ROW, NULL_ROW, EOF], &[(5, End(Eof, true))]);
    query(&[ONE, COLUMN, EOF, BINARY_ROW, BINARY_ROW, EOF], &[(5, End(Eof, true))]);
    query(&[ONE, COLUMN, EOF, EOF], &[(3, End(Eof, true))]);
    query(&[&[2], COLUMN, COLUMN, EOF, TEXT_ROW, EOF], &[(5, End(Eof, true))]);
    query(&[ONE, COLUMN, EOF, TEXT_ROW, ERR], &[(4, End(Error, true))]);
    query(&[ONE, COLUMN, ERR], &[(2, End(Error, true))]);
    query(&[ONE, COLUMN, EOF, PROGRESS, TEXT_ROW, PROGRESS, EOF], &[(6, End(Eof, true))]);
    query(
        &[ONE, COLUMN, EOF_MORE, TEXT_ROW, EOF_MORE, ONE, COLUMN, EOF_MORE, TEXT_ROW, EOF_MORE, OK],
        &[(4, End(Eof, false)), (9, End(Eof, false)), (10, End(Done, true))],
    );
    query(
        &[ONE, COLUMN, OUT_PARAMS, BINARY_ROW, OUT_PARAMS, OK],
        &[(4, End(Eof, false)), (5, End(Done, true))],
    );
    query(&[ONE, COLUMN, EOF_MORE, TEXT_ROW, EOF_MORE, ERR], &[(4, End(Eof, false)), (5, End(Error, true))]);
}

#[test]
fn rows_without_eof() {
    let query = |packets: &[&[u8]], events: &[(usize, Event)]| check(Grammar::Query, true, packets, events);
    query(&[ONE, COLUMN, TEXT_ROW, NULL_ROW, OK_EOF], &[(4, End(OkEof, true))]);
    query(&[ONE, COLUMN, BINARY_ROW, BINARY_ROW, OK_EOF], &[(4, End(OkEof, true))]);
    query(&[ONE, COLUMN, OK_EOF], &[(2, End(OkEof, true))]);
    query(&[&[2], COLUMN, COLUMN, TEXT_ROW, OK_EOF], &[(4, End(OkEof, true))]);
    query(&[ONE, COLUMN, TEXT_ROW, ERR], &[(3, End(Error, true))]);
    query(
        &[ONE, COLUMN, TEXT_ROW, OK_EOF_TRACKED, ONE, COLUMN, TEXT_ROW, OK_EOF_MORE, OK],
        &[(3, End(OkEof, false)), (7, End(OkEof, false)), (8, End(Done, true))],
    );
    // Longer than any EOF packet, and still the end.
    let tracked = [&[0xfe, 0, 0, 2, 0x40, 0, 0, 0, 0xfc, 4, 1, 42, 0xfc, 0, 1][..], &[7; 256]].concat();
    query(&[ONE, COLUMN, TEXT_ROW, &tracked], &[(3, End(OkEof, true))]);
    // A server that sends EOF all the same.
    query(&[ONE, COLUMN, TEXT_ROW, EOF], &[(3, End(Eof, true))]);
}

/// An open cursor: the columns end the response, with the flag in whatever packet comes after them.
#[test]
fn cursors() {
    check(Grammar::Query, false, &[ONE, COLUMN, EOF_CURSOR], &[(2, End(Eof, true))]);
    check(Grammar::Query, true, &[ONE, COLUMN, OK_EOF_CURSOR], &[(2, End(OkEof, true))]);
    check(Grammar::Fetch, false, &[BINARY_ROW, EOF_CURSOR], &[(1, End(Eof, true))]);
    check(Grammar::Fetch, true, &[BINARY_ROW, OK_EOF_CURSOR], &[(1, End(OkEof, true))]);
    check(Grammar::Fetch, false, &[EOF_LAST_ROW], &[(0, End(Eof, true))]);
    check(Grammar::Fetch, true, &[OK_EOF_LAST_ROW], &[(0, End(OkEof, true))]);
    check(Grammar::Fetch, true, &[ERR], &[(0, End(Error, true))]);
    // Of a fetch, nothing more comes, whatever the status of the session says.
    check(Grammar::Fetch, false, &[BINARY_ROW, EOF_MORE], &[(1, End(Eof, true))]);
}

#[test]
fn files() {
    for deprecate_eof in [false, true] {
        check(Grammar::Query, deprecate_eof, &[FILE, OK], &[(0, File), (1, End(Done, true))]);
        check(Grammar::Query, deprecate_eof, &[FILE, ERR], &[(0, File), (1, End(Error, true))]);
        check(Grammar::Query, deprecate_eof, &[FILE, PROGRESS, OK], &[(0, File), (2, End(Done, true))]);
        check(
            Grammar::Query,
            deprecate_eof,
            &[FILE, OK_MORE, FILE, OK],
            &[(0, File), (1, End(Done, false)), (2, File), (3, End(Done, true))],
        );
    }
}

#[test]
fn prepared_statements() {
    let head = |columns, parameters| [0, 3, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0];
    let prepare = |deprecate_eof, packets: &[&[u8]], end: (usize, Event)| {
        check(Grammar::Prepare, deprecate_eof, packets, &[(0, Prepare), end]);
    };
    for deprecate_eof in [false, true] {
        prepare(deprecate_eof, &[&head(0, 0)], (1, Event::Done));
        check(Grammar::Prepare, deprecate_eof, &[ERR], &[(0, End(Error, true))]);
    }
    prepare(false, &[&head(1, 0), COLUMN, EOF], (2, End(Eof, true)));
    prepare(false, &[&head(0, 2), COLUMN, COLUMN, EOF], (3, End(Eof, true)));
    prepare(false, &[&head(1, 2), COLUMN, COLUMN, EOF, COLUMN, EOF], (5, End(Eof, true)));
    prepare(false, &[&head(1, 1), COLUMN, EOF_CURSOR, COLUMN, EOF_MORE], (4, End(Eof, true)));
    prepare(true, &[&head(1, 0), COLUMN], (2, Event::Done));
    prepare(true, &[&head(0, 2), COLUMN, COLUMN], (3, Event::Done));
    prepare(true, &[&head(1, 2), COLUMN, COLUMN, COLUMN], (4, Event::Done));
    let long = [&head(0, 0)[..], &[1]].concat();
    prepare(true, &[&long], (1, Event::Done));
    let parsed = PrepareOk::parse(&head(1, 2));
    assert_eq!(parsed, Ok(PrepareOk { id: 3, columns: 1, parameters: 2 }));
}

#[test]
fn other_commands() {
    for deprecate_eof in [false, true] {
        check(Grammar::Ok, deprecate_eof, &[OK], &[(0, End(Done, true))]);
        check(Grammar::Ok, deprecate_eof, &[OK_MORE], &[(0, End(Done, true))]);
        check(Grammar::Ok, deprecate_eof, &[ERR], &[(0, End(Error, true))]);
        check(Grammar::SetOption, deprecate_eof, &[ERR], &[(0, End(Error, true))]);
        check(Grammar::Statistics, deprecate_eof, &[UPTIME], &[(1, Event::Done)]);
        check(Grammar::Statistics, deprecate_eof, &[ERR], &[(0, End(Error, true))]);
        check(Grammar::FieldList, deprecate_eof, &[ERR], &[(0, End(Error, true))]);
        check(Grammar::None, deprecate_eof, &[], &[(0, Event::Done)]);
    }
    check(Grammar::SetOption, false, &[EOF], &[(0, End(Eof, true))]);
    check(Grammar::SetOption, true, &[OK_EOF], &[(0, End(OkEof, true))]);
    check(Grammar::Ok, false, &[EOF], &[(0, End(Eof, true))]);
    check(Grammar::FieldList, false, &[FIELD, FIELD, EOF], &[(2, End(Eof, true))]);
    check(Grammar::FieldList, true, &[FIELD, FIELD, OK_EOF], &[(2, End(OkEof, true))]);
    check(Grammar::FieldList, true, &[OK_EOF], &[(0, End(OkEof, true))]);
}

/// MariaDB leaves out column definitions that the client has seen, but not the EOF behind them.
#[test]
fn cached_metadata() {
    let walker = |deprecate_eof| ResponseWalker::new(Grammar::Query, deprecate_eof, true);
    let eof = &[(3, End(Eof, true))];
    check_walker(walker(false), &[&[1, 0], EOF, BINARY_ROW, EOF], eof);
    check_walker(walker(false), &[&[1, 1], COLUMN, EOF, EOF], eof);
    check_walker(walker(false), &[&[1, 0], EOF_CURSOR], &[(1, End(Eof, true))]);
    check_walker(walker(true), &[&[1, 0], BINARY_ROW, OK_EOF], &[(2, End(OkEof, true))]);
    check_walker(walker(true), &[&[1, 1], COLUMN, BINARY_ROW, OK_EOF], &[(3, End(OkEof, true))]);
}

#[test]
fn rows_are_counted() {
    let packets = [ONE, COLUMN, TEXT_ROW, NULL_ROW, OK_EOF_MORE, ONE, COLUMN, TEXT_ROW, OK_EOF];
    let bytes = frames(&packets);
    for piece in 1..=bytes.len() {
        let mut walker = ResponseWalker::new(Grammar::Query, true, false);
        drive(&mut walker, &bytes, piece).expect("a good response");
        assert_eq!(walker.rows(), 3);
    }
}

/// A SELECT may have more columns than any table: servers answer 100,000 expressions.
#[test]
fn many_columns() {
    for columns in [65_535_usize, 65_536, 70_000, 0x2_0000, 300_000] {
        let count = [&[0xfd][..], &columns.to_le_bytes()[..3]].concat();
        let row = vec![1; 2 * columns];
        for (deprecate_eof, end, kind) in [(false, EOF, Eof), (true, OK_EOF, OkEof)] {
            let separator: &[&[u8]] = if deprecate_eof { &[] } else { &[EOF] };
            let packets = [&[&count[..]], &vec![COLUMN; columns][..], separator, &[&row, end]].concat();
            let (bytes, last) = (frames(&packets), packets.len() - 1);
            for piece in [4_093, bytes.len()] {
                let mut walker = ResponseWalker::new(Grammar::Query, deprecate_eof, false);
                let walked = drive(&mut walker, &bytes, piece);
                assert_eq!(walked, Ok((vec![(last, End(kind, true))], bytes.len())), "{columns} columns");
                assert_eq!(walker.rows(), 1);
            }
        }
    }
}

/// First bytes in continuations mean nothing, and a first value of 16 MiB is no EOF packet.
#[test]
fn packets_over_16_mib() {
    let mut row = vec![0xfe; 2 * MAX_PAYLOAD + 9];
    row[..9].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0]);
    let exact = &vec![2; MAX_PAYLOAD];
    for (deprecate_eof, end, kind) in [(false, EOF, Eof), (true, OK_EOF, OkEof)] {
        let separator: &[&[u8]] = if deprecate_eof { &[] } else { &[EOF] };
        let packets = [&[ONE, COLUMN], separator, &[&row, exact, TEXT_ROW, end]].concat();
        let bytes = frames(&packets);
        let last = packets.len() - 1;
        for piece in [1_000_003, MAX_PAYLOAD, 2 * MAX_PAYLOAD + 40, bytes.len()] {
            let mut walker = ResponseWalker::new(Grammar::Query, deprecate_eof, false);
            let walked = drive(&mut walker, &bytes, piece);
            assert_eq!(walked, Ok((vec![(last, End(kind, true))], bytes.len())), "pieces of {piece}");
            assert_eq!(walker.rows(), 3);
        }
    }
    // Shorter than a full frame it is still a row where EOF packets are short; elsewhere it is too long an OK.
    let bytes = frames(&[&row[..MAX_PAYLOAD - 1], &row[..9], EOF]);
    let walk = |deprecate_eof| {
        drive(&mut ResponseWalker::new(Grammar::Fetch, deprecate_eof, false), &bytes, bytes.len())
    };
    assert_eq!(walk(false), Ok((vec![(2, End(Eof, true))], bytes.len())));
    assert!(matches!(walk(true), Err(Malformed::TooLong { .. })));
}

#[test]
fn malformed_responses() {
    let header = |expected, got| Malformed::Header { expected, got };
    check_error(Grammar::Query, &[EOF], header("OK, ERR or a column count", 0xfe));
    check_error(Grammar::Query, &[FILE, TEXT_ROW], header("OK or ERR after a file", 1));
    check_error(Grammar::Query, &[ONE, EOF], header("a column definition", 0xfe));
    check_error(Grammar::Query, &[ONE, COLUMN, COLUMN], header("EOF after column definitions", 3));
    check_error(Grammar::Prepare, &[ONE], header("the head of a prepared statement", 1));
    check_error(Grammar::Ok, &[ONE], header("OK, EOF or ERR", 1));
    check_error(Grammar::Query, &[&[]], Malformed::Short { wanted: 1, left: 0 });
    check_error(Grammar::Fetch, &[TEXT_ROW, &[]], Malformed::Short { wanted: 1, left: 0 });
    check_error(Grammar::Fetch, &[TEXT_ROW, &[], TEXT_ROW], Malformed::Short { wanted: 1, left: 0 });
    check_error(Grammar::Query, &[&[0, 0, 0]], Malformed::Short { wanted: 2, left: 0 });
    check_error(Grammar::Query, &[&[0, 0xff, 0]], Malformed::LengthPrefix(0xff));
    check_error(Grammar::Query, &[&[0xff, 1]], Malformed::Short { wanted: 2, left: 1 });
    check_error(Grammar::Prepare, &[&[0, 1, 0, 0, 0, 1]], Malformed::Short { wanted: 2, left: 1 });
    check_error(Grammar::Fetch, &[&[0xfe, 0, 0]], Malformed::Short { wanted: 2, left: 0 });
    check_error(
        Grammar::Query,
        &[&[0xfe, 0, 0, 0, 1, 0, 0, 0, 0]],
        header("OK, ERR or a column count", 0xfe),
    );
    check_error(Grammar::Query, &[&[1, 1]], Malformed::Trailing { what: "a column count", len: 1 });
}

/// What has to be held back until it is whole is limited, and refused as soon as its length is known.
#[test]
fn ends_are_bounded() {
    let limit = MAX_END_PACKET_BYTES - HEADER_LEN;
    let start = |len: usize, first| [&len.to_le_bytes()[..3], &[1, first]].concat();
    for (grammar, first) in [
        (Grammar::Query, 0),
        (Grammar::Query, 0xff),
        (Grammar::Query, 0xfb),
        (Grammar::Query, 1),
        (Grammar::Prepare, 0),
        (Grammar::Ok, 0xfe),
        (Grammar::Fetch, 0xff),
    ] {
        let walk = |len| ResponseWalker::new(grammar, true, false).walk(&start(len, first));
        assert_eq!(walk(limit), Ok((0, Stop::NeedMore)));
        assert!(matches!(walk(limit + 1), Err(Malformed::TooLong { .. })), "{grammar:?} {first}");
        assert!(matches!(walk(MAX_PAYLOAD), Err(Malformed::TooLong { .. })), "{grammar:?} {first}");
    }
    // Rows are never held.
    let mut walker = ResponseWalker::new(Grammar::Fetch, true, false);
    assert_eq!(walker.walk(&start(MAX_PAYLOAD, 0)), Ok((5, Stop::NeedMore)));
}

proptest! {
    #[test]
    fn any_response_in_any_pieces(
        results in prop::collection::vec((0usize..4, prop::collection::vec(1usize..600, 0..12)), 1..4),
        deprecate_eof: bool,
        piece in 1usize..2000,
    ) {
        let (mut packets, mut events) = (Vec::new(), Vec::new());
        for (index, (columns, rows)) in results.iter().enumerate() {
            let last = index + 1 == results.len();
            let status = if last { 2 } else { 0x0a };
            if *columns == 0 {
                events.push((packets.len(), End(Done, last)));
                packets.push(vec![0, 0, 0, status, 0, 0, 0]);
                continue;
            }
            packets.push(vec![*columns as u8]);
            packets.extend(std::iter::repeat_n(COLUMN.to_vec(), *columns));
            if !deprecate_eof {
                packets.push(vec![0xfe, 0, 0, status, 0]);
            }
            packets.extend(rows.iter().map(|len| vec![(len % 0xfc) as u8; *len]));
            let end = if deprecate_eof { vec![0xfe, 0, 0, status, 0, 0, 0] } else { vec![0xfe, 0, 0, status, 0] };
            events.push((packets.len(), End(if deprecate_eof { OkEof } else { Eof }, last)));
            packets.push(end);
        }
        let packets: Vec<_> = packets.iter().map(Vec::as_slice).collect();
        let bytes = frames(&packets);
        let mut walker = ResponseWalker::new(Grammar::Query, deprecate_eof, false);
        prop_assert_eq!(drive(&mut walker, &bytes, piece), Ok((events, bytes.len())));
        let rows: usize = results.iter().filter(|(columns, _)| *columns > 0).map(|(_, rows)| rows.len()).sum();
        prop_assert_eq!(walker.rows(), rows as u64);
    }

    /// The same bytes give the same answer however they are cut.
    #[test]
    fn junk_in_any_pieces(
        junk in prop::collection::vec(prop::sample::select(vec![0, 1, 2, 5, 7, 0xfb, 0xfe, 0xff]), 0..80),
        grammar in 0usize..7,
        deprecate_eof: bool,
        piece in 1usize..10,
    ) {
        use Grammar::{FieldList, Fetch, Ok as Plain, Prepare, Query, SetOption, Statistics};
        let grammar = [Query, Prepare, Fetch, FieldList, Statistics, Plain, SetOption][grammar];
        let walk = |piece| drive(&mut ResponseWalker::new(grammar, deprecate_eof, false), &junk, piece);
        let (whole, pieces) = (walk(usize::MAX), walk(piece));
        prop_assert_eq!(whole, pieces);
    }
}

#[track_caller]
fn check(grammar: Grammar, deprecate_eof: bool, packets: &[&[u8]], events: &[(usize, Event)]) {
    check_walker(ResponseWalker::new(grammar, deprecate_eof, false), packets, events);
}

/// The walker reports `events` however the bytes are cut, not before they are there, and stops at their end.
#[track_caller]
fn check_walker(walker: ResponseWalker, packets: &[&[u8]], events: &[(usize, Event)]) {
    let bytes = frames(packets);
    let next = [&bytes[..], &[9; 20]].concat();
    for piece in 1..=next.len() {
        let walked = drive(&mut walker.clone(), &next, piece);
        assert_eq!(walked, Ok((events.to_vec(), bytes.len())), "{packets:02x?} in pieces of {piece}");
    }
    for len in 0..bytes.len() {
        let (walked, _consumed) =
            drive(&mut walker.clone(), &bytes[..len], len.max(1)).expect("a good start");
        assert!(walked.len() < events.len(), "{packets:02x?} ended at {len}: {walked:?}");
        assert_eq!(walked, events[..walked.len()]);
    }
}

#[track_caller]
fn check_error(grammar: Grammar, packets: &[&[u8]], expected: Malformed) {
    let bytes = frames(packets);
    for piece in 1..=bytes.len() {
        let walked = drive(&mut ResponseWalker::new(grammar, false, false), &bytes, piece);
        assert_eq!(walked, Err(expected), "{packets:02x?} in pieces of {piece}");
    }
}

fn frames(packets: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packets.iter().fold(1, |sequence, packet| write_packet(&mut bytes, sequence, packet));
    bytes
}

/// Shows `bytes` in pieces as the relay does; gives the events by index of their packet, and how much was used up.
fn drive(
    walker: &mut ResponseWalker,
    bytes: &[u8],
    piece: usize,
) -> Result<(Vec<(usize, Event)>, usize), Malformed> {
    let (mut events, mut used, mut shown) = (Vec::new(), 0, 0);
    loop {
        let (ahead, stop) = walker.walk(&bytes[used..shown])?;
        used += ahead;
        let (len, event) = match stop {
            Stop::NeedMore if shown == bytes.len() => return Ok((events, used)),
            Stop::NeedMore => {
                shown = shown.saturating_add(piece).min(bytes.len());
                continue;
            }
            Stop::End { len, kind, last } => (len, End(kind, last)),
            Stop::PrepareOk { len } => (len, Prepare),
            Stop::LocalInfile { len } => (len, File),
            Stop::Done => (0, Event::Done),
        };
        events.push((packets_before(&bytes[..used]), event));
        used += len;
        if matches!(event, Event::Done | End(_, true)) {
            return Ok((events, used));
        }
    }
}

/// Counts the packets, not frames, that end in `bytes`.
fn packets_before(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Some(header) = Header::parse(&bytes[at..]) {
        at += header.frame_len();
        count += usize::from(!header.continues());
    }
    count
}
