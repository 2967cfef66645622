//! Statements that have ended parsers: the answer is the server's own, and the session goes on.

use std::sync::Arc;

use pointsman_integration_tests::{Failure, Outcome, Stage, eventually};
use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::packet::MAX_PAYLOAD;
use pointsman_protocol::response::PrepareOk;

use super::fixtures::{PING, framed};
use super::wire::{Wire, error_code};
use super::{Bystander, LOGGED_WITHIN, MEMORY_MIB, alive};

/// Each with its name.
fn statements() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: String| text.into_bytes();
    vec![
        ("100,000 parentheses", text(format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)))),
        ("100,000 open parentheses", text(format!("SELECT {}", "(".repeat(100_000)))),
        ("300 joins", text(format!("SELECT 1 FROM t{}", " JOIN t".repeat(300)))),
        ("5,000 joins", text(format!("SELECT 1 FROM t{}", " JOIN t".repeat(5_000)))),
        ("80 KB of +1", text(format!("SELECT 1{}", "+1".repeat(40_000)))),
        ("70,000 columns", text(format!("SELECT 1{}", ",1".repeat(69_999)))),
        ("100,000 columns", text(format!("SELECT 1{}", ",1".repeat(99_999)))),
        ("a comment without end", text(format!("SELECT 1 {}", "/*".repeat(50_000)))),
        ("a string without end", text(format!("SELECT '{}", "a".repeat(100_000)))),
        ("nearly 16 MB", text(format!("SELECT LENGTH('{}')", "x".repeat(16_000_000)))),
        ("exactly one full packet", text(format!("SELECT LENGTH('{}')", "x".repeat(MAX_PAYLOAD - 18)))),
        ("17 MB in two packets", text(format!("SELECT LENGTH('{}')", "x".repeat(17_000_000)))),
        (
            "a write of 17 MB",
            text(format!("UPDATE sandbox SET id = id WHERE '{}' = 'x'", "x".repeat(17_000_000))),
        ),
        ("junk of 17 MB", vec![0xff; 17_000_000]),
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
            let answer = ask(port, names, &sql).await;
            told.push(answer.map_err(|failure| format!("{name} on port {port}: {failure}"))?);
        }
        assert_eq!(told[1], told[0], "{name}: expected what the server says");
    }
    let grown = bystander.memory()?.saturating_sub(before);
    assert!(grown < MEMORY_MIB * 2, "{grown} MiB more");
    bystander.unaffected().await
}

/// What came of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Ok,
    Error(u16),
    /// A result of so many packets, with its last row.
    Rows(usize, Vec<u8>),
    /// The end of the connection.
    End,
}

/// Runs a statement on a connection of its own, which goes on after it.
async fn ask(port: u16, names: &[u8], sql: &[u8]) -> Result<Told, Failure> {
    let mut wire = Wire::logged_in(port, Capabilities::empty()).await?;
    wire.send(&framed(0, names)).await;
    alive(&mut wire).await?;
    wire.send(&framed(0, &[b"\x03", sql].concat())).await;
    let told = answer(&mut wire).await?;
    wire.send(&framed(0, &[PING])).await;
    alive(&mut wire).await?;
    Ok(told)
}

/// Reads a whole answer: the rows of a result lie between two EOF packets, or wait behind the first for their cursor.
pub(super) async fn answer(wire: &mut Wire) -> Result<Told, Failure> {
    let (mut packets, mut ends, mut last) = (0, 0, Vec::new());
    while ends < 2 {
        let Some(packet) = wire.packet().await? else { return Ok(Told::End) };
        if let Some(code) = error_code(&packet) {
            return Ok(Told::Error(code));
        }
        packets += 1;
        match (packets, packet.as_slice()) {
            (1, [0, ..]) => return Ok(Told::Ok),
            (_, [0xfe, _, _, status, ..]) if packet.len() < 8 => {
                ends += if status & CURSOR_EXISTS == 0 { 1 } else { 2 };
            }
            _ => last = packet,
        }
    }
    Ok(Told::Rows(packets, last))
}

/// Prepares a statement with one parameter and one column.
pub(super) async fn prepared(wire: &mut Wire, sql: &[u8]) -> Result<[u8; 4], Failure> {
    wire.send(&framed(0, &[b"\x16", sql].concat())).await;
    let head = wire.packet().await?.ok_or("expected a prepared statement, got the end")?;
    // A definition and an EOF for the parameter, and for the column.
    for _packet in 0..4 {
        wire.packet().await?;
    }
    Ok(PrepareOk::parse(&head)?.id.to_le_bytes())
}

/// Servers count the columns of a prepared statement in 16 bits and send them all: nobody can follow that.
pub(super) async fn miscounted(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let prepare = |columns: usize| framed(0, format!("\x16SELECT 1{}", ",1".repeat(columns - 1)).as_bytes());
    let mut wire = Wire::logged_in(bystander.proxy.port(), Capabilities::empty()).await?;
    wire.send(&prepare(70_000)).await;
    // In the middle of a definition no error can be told.
    let code = wire.ended().await?;
    assert!(matches!(code, None | Some(1835)), "ended with {code:?}");
    eventually("the log says why", LOGGED_WITHIN, async || {
        bystander.proxy.log().contains("cannot be followed: expected EOF after column definitions")
    })
    .await;
    // Here it counts none, and what follows must not be taken for the answer to anything.
    let mut wire = Wire::logged_in(bystander.proxy.port(), Capabilities::empty()).await?;
    wire.send(&prepare(65_536)).await;
    let head = wire.packet().await?.ok_or("expected a prepared statement, got the end")?;
    assert_eq!(PrepareOk::parse(&head)?.columns, 0);
    wire.send(&framed(0, b"\x03SELECT 'mine' AS a")).await;
    let packets = [wire.packet().await?, wire.packet().await?, wire.packet().await?, wire.packet().await?];
    assert_eq!(packets[3].as_deref(), Some(&b"\x04mine"[..]), "{packets:02x?}");
    bystander.unaffected().await
}

/// Of the status flags of an EOF packet.
const CURSOR_EXISTS: u8 = 0x40;
