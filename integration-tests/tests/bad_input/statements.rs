//! Statements that have ended parsers: the answer is the server's own, and the session goes on.

use std::sync::Arc;

use pointsman_integration_tests::{Outcome, Stage};
use pointsman_protocol::capability::Capabilities;

use super::fixtures::{PING, framed};
use super::wire::{Wire, error_code};
use super::{Bystander, MEMORY_MIB, alive};

/// Each with its name.
fn statements() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: String| text.into_bytes();
    vec![
        ("100,000 parentheses", text(format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)))),
        ("100,000 open parentheses", text(format!("SELECT {}", "(".repeat(100_000)))),
        ("300 joins", text(format!("SELECT 1 FROM t{}", " JOIN t".repeat(300)))),
        ("5,000 joins", text(format!("SELECT 1 FROM t{}", " JOIN t".repeat(5_000)))),
        ("80 KB of +1", text(format!("SELECT 1{}", "+1".repeat(40_000)))),
        ("a comment without end", text(format!("SELECT 1 {}", "/*".repeat(50_000)))),
        ("a string without end", text(format!("SELECT '{}", "a".repeat(100_000)))),
        ("nearly 16 MB", text(format!("SELECT LENGTH('{}')", "x".repeat(16_000_000)))),
        ("invalid UTF-8", b"SELECT HEX('\xc3\x28\xff\xfe\xf0\x82\x82\xac')".to_vec()),
        ("invalid UTF-8 outside of strings", b"SELECT \xc3\x28 FROM \xff".to_vec()),
        ("a NUL", b"SELECT 1\0; DROP TABLE t".to_vec()),
        // In gbk 0xbf5c is one character, so that the quote ends the string.
        ("an escape in gbk", b"SELECT '\xbf\x5c', (SELECT COUNT(*) FROM mysql.nothing) -- '".to_vec()),
    ]
}

pub(super) async fn as_the_server(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let direct = stage.sandbox().await?.primary().port();
    let before = bystander.memory()?;
    for (name, sql) in statements() {
        let names: &[u8] = if name.contains("gbk") { b"\x03SET NAMES gbk" } else { b"\x03SET NAMES utf8mb4" };
        let mut told = Vec::new();
        for port in [direct, bystander.proxy.port()] {
            let mut wire = Wire::logged_in(port, Capabilities::empty()).await?;
            wire.send(&framed(0, names)).await;
            alive(&mut wire).await?;
            wire.send(&framed(0, &[b"\x03", &sql[..]].concat())).await;
            let head = wire.packet().await?;
            told.push(head.as_deref().map(|head| (error_code(head), head.first().copied())));
            if head.as_deref().is_some_and(|head| error_code(head).is_some()) {
                wire.send(&framed(0, &[PING])).await;
                alive(&mut wire).await.map_err(|failure| format!("after {name}: {failure}"))?;
            }
        }
        assert_eq!(told[1], told[0], "{name}: expected what the server says");
    }
    let grown = bystander.memory()?.saturating_sub(before);
    assert!(grown < MEMORY_MIB * 2, "{grown} MiB more");
    bystander.unaffected().await
}
