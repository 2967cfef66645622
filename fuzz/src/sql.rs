//! What statements do.

use pointsman_router::classify::{Call, Catalogue, Classifier, Mode, calls, explain, normal_form, variables};
use pointsman_router::intent::{Flavour, Kind, Target};

use crate::option;

/// How a session reads text.
fn mode(chosen: u8) -> Mode {
    Mode {
        flavour: if chosen & 1 == 0 { Flavour::Mariadb } else { Flavour::Mysql },
        no_backslash_escapes: chosen & 2 != 0,
        ansi_quotes: chosen & 4 != 0,
        oracle: chosen & 8 != 0,
        ignore_space: chosen & 16 != 0,
        unsafe_charset: chosen & 32 != 0,
        multi_statements: chosen & 64 != 0,
        ..Mode::default()
    }
}

/// Tokens lie in the text, one after the other, and so do the places where values are put.
pub fn tokenizer(data: &[u8]) {
    let (chosen, sql) = option(data);
    let mode = mode(chosen);
    let mut end = 0;
    for token in explain(sql, &mode, &Catalogue::default()).tokens {
        assert!(end <= token.range.start && token.range.start < token.range.end, "{token:?}");
        end = token.range.end;
    }
    assert!(end <= sql.len());
    let _form = normal_form(sql, &mode);
    in_order(&calls(sql, &mode, "connection_id"), sql);
    in_order(&variables(sql, &mode, "socket"), sql);
}

fn in_order(found: &[Call], sql: &[u8]) {
    let mut start = 0;
    for Call { range, .. } in found {
        assert!(start <= range.start && range.start < range.end && range.end <= sql.len());
        start = range.start;
    }
}

/// What a statement does is the same for people and in the data path, and whatever was asked before; and what may go
/// to a replica begins as a read does.
pub fn classify(data: &[u8]) {
    let (chosen, texts) = option(data);
    let mode = mode(chosen);
    let catalogue = Catalogue::default();
    let mut used = Classifier::new([7; 32], 64);
    for sql in texts.split(|byte| *byte == SEPARATOR) {
        let after_others = used.classify(sql, &mode, &catalogue);
        let alone = Classifier::new([8; 32], 64).classify(sql, &mode, &catalogue);
        assert_eq!(after_others.intent, alone.intent, "{}", String::from_utf8_lossy(sql));
        let explained = explain(sql, &mode, &Catalogue::default());
        assert_eq!(*alone.intent, explained.intent);
        if explained.intent.kind == Kind::Read && explained.intent.target == Target::Replica {
            let first = explained
                .tokens
                .iter()
                .find(|token| token.class == "word")
                .map(|token| String::from_utf8_lossy(&sql[token.range.clone()]).to_ascii_lowercase());
            let first = first.unwrap_or_default();
            assert!(READS.contains(&first.as_str()), "{first}: {}", String::from_utf8_lossy(sql));
        }
    }
}

/// A byte that no statement here needs.
const SEPARATOR: u8 = 0;
const READS: [&str; 10] =
    ["select", "with", "values", "value", "table", "show", "desc", "describe", "explain", "do"];
