use proptest::prelude::*;

use super::*;

#[test]
fn plain_commands() {
    check(&[0x01], Command::Quit);
    check(b"\x02app", Command::InitDb(b"app"));
    check(b"\x03DO 1", Command::Query(Query { sql: b"DO 1", ..Query::default() }));
    check(b"\x03", Command::Query(Query::default()));
    check(b"\x04t\0a%", Command::FieldList(b"t\0a%"));
    check(&[0x07, 4], Command::Refresh(4));
    check(&[0x08, 0], Command::Shutdown);
    check(&[0x09], Command::Statistics);
    check(&[0x0a], Command::ProcessInfo);
    check(&[0x0c, 7, 1, 0, 0], Command::ProcessKill(263));
    check(&[0x0d], Command::Debug);
    check(&[0x0e], Command::Ping);
    check(b"\x11root\0\0", Command::ChangeUser(b"root\0\0"));
    check(&[0x12, 4, 0], Command::BinlogDump(&[4, 0]));
    check(&[0x1e, 0, 0], Command::BinlogDumpGtid(&[0, 0]));
    check(&[0x13, 1, b'd'], Command::TableDump(b"\x01d"));
    check(&[0x15, 9, 0, 0, 0], Command::RegisterSlave(&[9, 0, 0, 0]));
    check(&[0x1f], Command::ResetConnection);
    for unknown in [0x00, 0x05, 0x06, 0x0b, 0x0f, 0x10, 0x14, 0x1d, 0x20, 0x21, 0xf9, 0xff] {
        check(&[unknown, 1, 2], Command::Unknown(unknown));
    }
}

#[test]
fn statement_commands() {
    check(b"\x16SELECT ?", Command::StmtPrepare(b"SELECT ?"));
    let rest = &[0, 1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    check(
        &[&[0x17, 3, 0, 0, 0, 1, 1, 0, 0, 0], &rest[..]].concat(),
        Command::StmtExecute(Execute { id: 3, flags: 1, iterations: 1, rest }),
    );
    check(b"\x18\x06\0\0\0\x02\0data", Command::StmtSendLongData { id: 6, param: 2, data: b"data" });
    check(&[0x18, 6, 0, 0, 0, 2, 0], Command::StmtSendLongData { id: 6, param: 2, data: b"" });
    check(&[0x19, 6, 0, 0, 0], Command::StmtClose(6));
    check(&[0x1a, 6, 0, 0, 0], Command::StmtReset(6));
    check(&[0x1b, 1, 0], Command::SetOption(1));
    check(&[0x1c, 4, 0, 0, 0, 10, 0, 0, 0], Command::StmtFetch { id: 4, rows: 10 });
    check(
        &[0xfa, 1, 0, 0, 0, 0x80, 0, 3, 0, 0, 5, 0, 0, 0],
        Command::StmtBulkExecute { id: 1, flags: 128, rest: &[3, 0, 0, 5, 0, 0, 0] },
    );
}

/// Junk that has ended other proxies.
#[test]
fn cut_arguments_are_errors() {
    for (payload, least) in [
        (&[][..], 1),
        (&[0x07, 4], 2),
        (&[0x0c, 7, 1, 0, 0], 5),
        (&[0x17, 3, 0, 0, 0, 1, 1, 0, 0, 0], 10),
        (&[0x18, 6, 0, 0, 0, 2, 0], 7),
        (&[0x19, 6, 0, 0, 0], 5),
        (&[0x1a, 6, 0, 0, 0], 5),
        (&[0x1b, 1, 0], 3),
        (&[0x1c, 4, 0, 0, 0, 10, 0, 0, 0], 9),
        (&[0xfa, 1, 0, 0, 0, 0x80, 0], 7),
    ] {
        for len in 0..least {
            let cut = Command::parse(&payload[..len.min(payload.len())], &Capabilities::empty());
            let unfinished = matches!(cut, Err(Malformed::Short { .. }));
            assert!(unfinished, "{payload:02x?} cut to {len}: {cut:?}");
        }
    }
}

#[test]
fn query_attributes() {
    check_query(b"\x03\0\x01DO 1", &[]);
    check_query(b"\x03\0\xfc\x01\0DO 1", &[]);
    check_query(b"\x03\x01\x01\0\x01\xfd\0\x01n\x01vDO 1", &[attribute(b"n", Some(b"v"), 253)]);
    check_query(b"\x03\x01\x01\x01\x01\x08\0\x01nDO 1", &[attribute(b"n", None, 8)]);
    check_query(
        b"\x03\x03\x01\x02\x01\x01\x80\x01a\x08\0\0\x0a\0\x01c\x07\x04\xea\x07\x0b\x18DO 1",
        &[
            attribute(b"a", Some(&[7]), 0x8001),
            attribute(b"", None, 8),
            attribute(b"c", Some(&[0xea, 7, 11, 24]), 10),
        ],
    );
    for (kind, value) in [(2, &b"12"[..]), (3, b"1234"), (4, b"1234"), (5, b"12345678"), (8, b"12345678")] {
        let payload = [&[3, 1, 1, 0, 1, kind, 0, 1, b'n'], value, b"DO 1"].concat();
        check_query(&payload, &[attribute(b"n", Some(value), kind.into())]);
    }
    let many = [b"\x03\xfc\x2c\x01\x01", &[0xff; 38][..], &[1], &[8, 0, 0].repeat(300), b"DO 1"].concat();
    check_query(&many, &[attribute(b"", None, 8); 300]);
    // Types of a fixed length elsewhere that MySQL takes for strings here.
    for kind in [0, 6, 9, 13, 17, 19, 20, 243, 245, 255] {
        let payload = [&[3, 1, 1, 0, 1, kind, 0, 1, b'n'], &b"\x03abcDO 1"[..]].concat();
        check_query(&payload, &[attribute(b"n", Some(b"abc"), kind.into())]);
    }
}

/// What MySQL 9.7 refuses as well, or reads as something else than the client can have meant.
#[test]
fn malformed_query_attributes() {
    check_query_error(b"\x03");
    check_query_error(b"\x03\0");
    check_query_error(b"\x03\0\0DO 1");
    check_query_error(b"\x03\0\x02DO 1");
    check_query_error(b"\x03\xfb\x01DO 1");
    check_query_error(b"\x03\xfe\0\0\0\0\0\0\0\x80\x01DO 1");
    check_query_error(b"\x03\xfc\xff\xff\x01DO 1");
    check_query_error(b"\x03\x01\x01\0\0\x01\0\x01nvDO 1");
    check_query_error(b"\x03\x01\x01\0\x01\xf4\0\x01n\x01vDO 1");
    check_query_error(b"\x03\x01\x01\0\x01\x01\x01\x01nvDO 1");
    check_query_error(b"\x03\x01\x01\0\x01\xfd\0\x01n\xf0DO 1");
    check_query_error(b"\x03\x01\x01\0\x01\xfd\0\x01n\xfbDO 1");
    check_query_error(b"\x03\x01\x01\0\x01\xfd\0\xffDO 1");
}

#[test]
fn execute_bodies() {
    let plain = Capabilities::empty();
    let named = Capabilities::QUERY_ATTRIBUTES;
    // Null bitmap, flag, two types, values.
    let two = b"\0\x01\x08\0\xfd\0\x03\0\0\0\0\0\0\0\x01z";
    check_execute(0, two, 2, plain, Some((2, true, 12..16)));
    check_execute(0, b"\0\0\x03\0\0\0\0\0\0\0\x01z", 2, plain, Some((2, false, 12..12)));
    check_execute(0, b"", 0, plain, Some((0, false, 10..10)));
    check_execute(0, b"junk", 0, plain, Some((0, false, 10..10)));
    check_execute(0, &[0; 12], 80, plain, Some((80, false, 21..21)));
    // With names: their number, null bitmap, flag, type and name, value.
    let one = b"\x01\0\x01\x08\0\0M\0\0\0\0\0\0\0";
    check_execute(0, one, 1, named, Some((1, true, 13..16)));
    check_execute(8, one, 1, named, Some((1, true, 13..16)));
    check_execute(8, b"\x01\0\x01\xfd\0\x01n\x01v", 0, named, Some((1, true, 13..17)));
    check_execute(0, b"", 0, named, Some((0, false, 10..10)));
    check_execute(8, b"\0", 1, named, Some((0, false, 11..11)));
    // The flag alone says nothing without the capability.
    check_execute(8, two, 2, plain, Some((2, true, 12..16)));

    check_execute(0, b"", 1, plain, None);
    check_execute(0, b"\0", 1, plain, None);
    check_execute(0, b"\0\x01\x08", 1, plain, None);
    check_execute(0, &[0; 9], 80, plain, None);
    check_execute(0, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff", 1, named, None);
    check_execute(0, b"\x01\0\x01\x08\0\xfa", 1, named, None);
}

#[test]
fn types_are_put_in_place() {
    let without = b"\x17\x03\0\0\0\0\x01\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01z";
    let with = b"\x17\x03\0\0\0\0\x01\0\0\0\0\x01\x08\0\xfd\0\x03\0\0\0\0\0\0\0\x01z";
    let none = b"\x17\x03\0\0\0\0\x01\0\0\0";
    for (payload, parameters, expected) in [(&without[..], 2, &with[..]), (with, 2, with), (none, 0, none)] {
        let Ok(Command::StmtExecute(execute)) = Command::parse(payload, &Capabilities::empty()) else {
            panic!("expected an execution: {payload:02x?}");
        };
        let body = ExecuteBody::parse(&execute, parameters, Capabilities::empty()).expect("a good body");
        let mut out = Vec::new();
        body.write_with_types(payload, b"\x08\0\xfd\0", &mut out);
        assert_eq!(out, expected);
    }
}

#[test]
fn bulk_types_are_put_in_place() {
    let without = [0xfa, 1, 0, 0, 0, 64, 0, 0, 5, 0, 0, 0, 1];
    let with = [0xfa, 1, 0, 0, 0, 192, 0, 3, 0, 0, 5, 0, 0, 0, 1];
    for (payload, sent) in [(&without[..], false), (&with[..], true)] {
        let Ok(Command::StmtBulkExecute { id: 1, flags, rest }) =
            Command::parse(payload, &Capabilities::empty())
        else {
            panic!("expected a bulk execution: {payload:02x?}");
        };
        let body = BulkBody::parse(flags, rest, 1).expect("a good body");
        assert_eq!(body.types_sent, sent);
        let mut out = Vec::new();
        body.write_with_types(payload, flags, &[3, 0], &mut out);
        assert_eq!(out, with);
    }
    assert!(BulkBody::parse(BulkBody::SEND_TYPES, &[3], 1).is_err());
}

#[test]
fn answers() {
    let grammar =
        |payload: &[u8]| Command::parse(payload, &Capabilities::empty()).expect("a good command").grammar();
    assert_eq!(grammar(b"\x03DO 1"), Some(Grammar::Query));
    assert_eq!(grammar(&[0x1c, 4, 0, 0, 0, 10, 0, 0, 0]), Some(Grammar::Fetch));
    assert_eq!(grammar(&[0x19, 6, 0, 0, 0]), Some(Grammar::None));
    assert_eq!(grammar(&[0x09]), Some(Grammar::Statistics));
    assert_eq!(grammar(b"\x11root\0\0"), None);
}

proptest! {
    #[test]
    fn junk_is_an_error_or_a_command(junk in prop::collection::vec(any::<u8>(), 0..60), kind in 0usize..5) {
        let first = [code::QUERY, code::STMT_EXECUTE, code::STMT_SEND_LONG_DATA, code::STMT_BULK_EXECUTE, 4][kind];
        let payload = [&[first], &junk[..]].concat();
        for capabilities in [Capabilities::empty(), Capabilities::QUERY_ATTRIBUTES] {
            match Command::parse(&payload, &capabilities) {
                Ok(Command::Query(query)) => {
                    prop_assert_eq!(query.attributes.iter().count(), query.attributes.len());
                }
                Ok(Command::StmtExecute(execute)) => {
                    for parameters in [0, 1, 9] {
                        if let Ok(body) = ExecuteBody::parse(&execute, parameters, capabilities) {
                            body.write_with_types(&payload, &[8, 0], &mut Vec::new());
                        }
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Whatever the block in front holds, the text that follows it comes out whole.
    #[test]
    fn the_text_behind_attributes(
        attributes in prop::collection::vec((any::<Option<u64>>(), prop::collection::vec(any::<u8>(), 0..300)), 1..20),
        sql in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (mut nulls, mut types, mut values) = (vec![0; attributes.len().div_ceil(8)], Vec::new(), Vec::new());
        for (index, (number, bytes)) in attributes.iter().enumerate() {
            types.extend_from_slice(&[if number.is_some() { 8 } else { 254 }, 0]);
            crate::codec::put_lenenc_bytes(&mut types, bytes);
            match number {
                Some(0..0x4000_0000_0000_0000) => nulls[index / 8] |= 1 << (index % 8),
                Some(number) => values.extend_from_slice(&number.to_le_bytes()),
                None => crate::codec::put_lenenc_bytes(&mut values, bytes),
            }
        }
        let head = [code::QUERY, attributes.len() as u8, 1];
        let payload = [&head[..], &nulls, &[1], &types, &values, &sql].concat();
        let parsed = Command::parse(&payload, &Capabilities::QUERY_ATTRIBUTES);
        let Ok(Command::Query(query)) = parsed else { panic!("{parsed:?}") };
        prop_assert_eq!(query.sql, &sql[..]);
        for (attribute, (number, bytes)) in query.attributes.iter().zip(&attributes) {
            prop_assert_eq!(attribute.name, &bytes[..]);
            prop_assert_eq!(attribute.value.is_none(), number.is_some_and(|number| number < 1 << 62));
        }
        // Cut anywhere in the block, it is an error, never another text.
        for len in 0..payload.len() - sql.len() {
            prop_assert!(Command::parse(&payload[..len], &Capabilities::QUERY_ATTRIBUTES).is_err());
        }
    }
}

#[track_caller]
fn check(payload: &[u8], expected: Command<'_>) {
    assert_eq!(Command::parse(payload, &Capabilities::empty()), Ok(expected), "{payload:02x?}");
}

fn attribute<'a>(name: &'a [u8], value: Option<&'a [u8]>, kind: u16) -> Attribute<'a> {
    Attribute { name, value, kind }
}

/// The text is always `DO 1`.
#[track_caller]
fn check_query(payload: &[u8], expected: &[Attribute<'_>]) {
    let parsed = Command::parse(payload, &Capabilities::QUERY_ATTRIBUTES);
    let Ok(Command::Query(query)) = parsed else { panic!("{payload:02x?}: {parsed:?}") };
    assert_eq!(query.sql, b"DO 1", "{payload:02x?}");
    let attributes: Vec<_> = query.attributes.iter().collect();
    assert_eq!(attributes, expected, "{payload:02x?}");
    assert_eq!(query.attributes.len(), expected.len());
}

#[track_caller]
fn check_query_error(payload: &[u8]) {
    let parsed = Command::parse(payload, &Capabilities::QUERY_ATTRIBUTES);
    assert!(parsed.is_err(), "{payload:02x?}: {parsed:?}");
}

#[track_caller]
fn check_execute(
    flags: u8,
    rest: &[u8],
    parameter_count: u16,
    capabilities: Capabilities,
    expected: Option<(usize, bool, std::ops::Range<usize>)>,
) {
    let execute = Execute { id: 1, flags, iterations: 1, rest };
    let body = ExecuteBody::parse(&execute, parameter_count, capabilities).ok();
    assert_eq!(
        body.map(|body| (body.parameters, body.new_params_bound, body.types)),
        expected,
        "{rest:02x?}"
    );
}
