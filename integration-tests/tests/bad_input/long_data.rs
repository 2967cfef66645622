//! Junk in COM_STMT_SEND_LONG_DATA of a statement that is there: the execution says what the server says, and the
//! session goes on.

use std::sync::Arc;

use pointsman_integration_tests::{Failure, Outcome, Stage};
use pointsman_protocol::capability::Capabilities;

use super::fixtures::{ID, PING, framed};
use super::statements::{Told, answer, prepared};
use super::wire::Wire;
use super::{Bystander, alive};

/// What is sent before the execution, each with its name; the statement's id stands in place of [`ID`].
fn pieces() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let data =
        |parameter: u16, data: &[u8]| [&[0x18, ID, ID, ID, ID], &parameter.to_le_bytes()[..], data].concat();
    vec![
        ("as it should be", vec![data(0, b"some"), data(0, b" more")]),
        ("nothing", vec![data(0, b"")]),
        ("70,000 bytes", vec![data(0, &[0xff; 70_000])]),
        ("17 MB in two packets", vec![data(0, &vec![b'x'; 17_000_000])]),
        ("a parameter that is not there", vec![data(1, b"some")]),
        ("parameter 65,535", vec![data(u16::MAX, b"some")]),
        ("a bad one behind a good one", vec![data(0, b"some"), data(7, b"some")]),
        (
            "some of a statement that is not there",
            vec![data(0, b"a"), b"\x18\x09\x09\x09\x09\0\0b".to_vec(), data(0, b"c")],
        ),
        ("many pieces", vec![data(0, b"x"); 1000]),
    ]
}

pub(super) async fn as_the_server(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let direct = stage.sandbox().await?.primary().port();
    for (name, pieces) in pieces() {
        let mut told = Vec::new();
        for port in [direct, bystander.proxy.port()] {
            let answer = executed(port, &pieces).await;
            told.push(answer.map_err(|failure| format!("{name} on port {port}: {failure}"))?);
        }
        assert_eq!(told[1], told[0], "{name}: expected what the server says");
    }
    bystander.unaffected().await
}

/// What the execution says, and a second one that brings its value along as usual.
async fn executed(port: u16, pieces: &[Vec<u8>]) -> Result<[Told; 2], Failure> {
    let mut wire = Wire::logged_in(port, Capabilities::empty()).await?;
    let id = prepared(&mut wire, b"SELECT LENGTH(?)").await?;
    let with_id = |payload: &[u8]| {
        let mut payload = payload.to_vec();
        if payload[1..5] == [ID; 4] {
            payload[1..5].copy_from_slice(&id);
        }
        framed(0, &payload)
    };
    for piece in pieces {
        wire.send(&with_id(piece)).await;
    }
    // One parameter that is not NULL, of type BLOB; its value has been sent.
    wire.send(&with_id(&[0x17, ID, ID, ID, ID, 0, 1, 0, 0, 0, 0, 1, 0xfc, 0])).await;
    let first = answer(&mut wire).await?;
    wire.send(&with_id(&[0x1a, ID, ID, ID, ID])).await;
    alive(&mut wire).await?;
    wire.send(&with_id(&[0x17, ID, ID, ID, ID, 0, 1, 0, 0, 0, 0, 1, 0xfc, 0, 3, b'a', b'b', b'c'])).await;
    let second = answer(&mut wire).await?;
    wire.send(&framed(0, &[PING])).await;
    alive(&mut wire).await?;
    Ok([first, second])
}
