use pointsman_protocol::compress::{Algorithm, Compressor};
use pointsman_protocol::packet::write_packet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::backend::budget::Permit;
use crate::backend::pool::KeyId;
use crate::net::Stream;

const OK: &[u8] = &[0, 1, 5, 2, 0, 0, 0];
/// An OK with a tracked schema `ab`.
const OK_WITH_SCHEMA: &[u8] = &[0, 0, 0, 2, 0x40, 0, 0, 0, 5, 1, 3, 2, b'a', b'b'];
const OK_WITHOUT_TRACKER: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
/// An OK with `last_gtid` = `0-1-9`.
const OK_WITH_GTID: &[u8] = b"\x00\x01\x00\x02\x40\x00\x00\x00\x12\x00\x10\x09last_gtid\x050-1-9";
const COLUMN: &[u8] = b"\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00";
const EOF_PACKET: &[u8] = &[0xfe, 0, 0, 2, 0];
const READ_ONLY: &[u8] = b"\xff\x0a\x05#HY000read-only";

/// The payloads as packets numbered from 1.
fn packets(payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sequence = 1;
    for payload in payloads {
        sequence = write_packet(&mut out, sequence, payload);
    }
    out
}

struct Scene {
    grammar: Grammar,
    options: RelayOptions,
    acknowledged: Acknowledged,
}

impl Scene {
    fn new(grammar: Grammar, client: Capabilities) -> Self {
        let options = RelayOptions { client, ..RelayOptions::default() };
        Self { grammar, options, acknowledged: Acknowledged::default() }
    }

    /// Feeds `answer` in pieces of `chunk` bytes and gives what the client got.
    async fn play(&self, answer: &[u8], chunk: usize) -> (Result<Reply, RelayError>, Vec<u8>) {
        let (near, mut client) = UnixStream::pair().unwrap();
        let mut lane = Lane::new(Stream::unix(near));
        let (mut connection, mut server) = ServerConnection::for_tests(KeyId(0), Permit::unlimited());
        let slot = Slot::new(1);
        let mut relay = Relay::new(&mut lane, &slot, self.grammar, false, self.options);
        relay.acknowledged = Some((&self.acknowledged, Flavour::Mariadb));
        let feed = async {
            for piece in answer.chunks(chunk) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        };
        let (reply, _server) = tokio::join!(relay.run(&mut connection), feed);
        drop(lane);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        (reply, got)
    }

    async fn check(&self, answer: &[&[u8]], expected: &[&[u8]]) -> Reply {
        let mut last = None;
        for chunk in [1, 3, 7, 4096] {
            let (reply, got) = self.play(&packets(answer), chunk).await;
            assert_eq!(got, packets(expected), "in pieces of {chunk}");
            last = Some(reply.unwrap());
        }
        last.unwrap()
    }
}

#[tokio::test]
async fn a_result_passes_byte_for_byte_whatever_the_client_can_read() {
    for client in [Capabilities::PROTOCOL_41, Capabilities::PROTOCOL_41 | Capabilities::SESSION_TRACK] {
        let answer: &[&[u8]] = &[&[1], COLUMN, EOF_PACKET, b"\x017", b"\xfb", EOF_PACKET];
        let reply = Scene::new(Grammar::Query, client).check(answer, answer).await;
        assert_eq!((reply.rows, reply.row_count, reply.error), (2, -1, None));
    }
}

#[tokio::test]
async fn trackers_reach_only_clients_that_asked_for_them() {
    let plain = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41);
    let reply = plain.check(&[OK_WITH_SCHEMA], &[OK_WITHOUT_TRACKER]).await;
    assert_eq!(reply.schema.as_deref(), Some(&b"ab"[..]));
    let tracking = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41 | Capabilities::SESSION_TRACK);
    tracking.check(&[OK_WITH_SCHEMA], &[OK_WITH_SCHEMA]).await;
}

#[tokio::test]
async fn a_commit_is_noted_before_the_client_hears_of_it() {
    let scene = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41 | Capabilities::SESSION_TRACK);
    let reply = scene.check(&[OK_WITH_GTID], &[OK_WITH_GTID]).await;
    assert_eq!(reply.gtid.to_string(), "0-1-9");
    assert_eq!(scene.acknowledged.current().to_string(), "0-1-9");
}

#[tokio::test]
async fn rows_changed_and_the_insert_id_are_taken_from_the_ok_packet() {
    let scene = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41);
    let reply = scene.check(&[OK], &[OK]).await;
    assert_eq!((reply.row_count, reply.insert_id, reply.has_status), (1, 5, true));
}

#[tokio::test]
async fn a_prepared_statement_gets_the_id_that_the_client_will_use() {
    let mut scene = Scene::new(Grammar::Prepare, Capabilities::PROTOCOL_41);
    scene.options.statement_id = Some(0x0102_0304);
    let from_server: &[u8] = &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let to_client: &[u8] = &[0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0];
    let reply = scene.check(&[from_server], &[to_client]).await;
    assert_eq!(reply.prepared.map(|head| head.id), Some(9));
}

#[tokio::test]
async fn in_a_read_only_transaction_a_replica_answers_as_one_server_would() {
    let mut scene = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41);
    let from_replica: &[u8] = b"\xff\x0a\x05#HY000--read-only";
    scene.check(&[from_replica], &[from_replica]).await;
    scene.options.read_only_transaction = true;
    let to_client: &[u8] = b"\xff\x00\x07#25006Cannot execute statement in a READ ONLY transaction";
    assert_eq!(scene.check(&[from_replica], &[to_client]).await.error, Some(1792));
}

#[tokio::test]
async fn a_read_only_error_is_held_back_only_where_the_statement_can_run_elsewhere() {
    let mut scene = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41);
    let reply = scene.check(&[READ_ONLY], &[READ_ONLY]).await;
    assert_eq!(reply.error, Some(1290));
    scene.options.hold_back = HoldBack::Misrouted;
    let (reply, got) = scene.play(&packets(&[READ_ONLY]), 4096).await;
    assert!(
        matches!(reply, Err(RelayError::HeldBack(error)) if error.code == 1290 && error.message == b"read-only")
    );
    assert!(got.is_empty());
}

#[tokio::test]
async fn what_cannot_be_followed_is_not_taken_for_a_lost_server() {
    let scene = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41);
    let bad: [&[&[u8]]; 4] =
        [&[EOF_PACKET], &[&[0, 0xff]], &[&[1], EOF_PACKET], &[&[1], COLUMN, EOF_PACKET, b""]];
    for payloads in bad {
        for chunk in [1, 4096] {
            let (reply, _got) = scene.play(&packets(payloads), chunk).await;
            assert!(matches!(reply, Err(RelayError::Malformed(_))), "{payloads:02x?}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_dies_tells_whether_anything_was_answered() {
    let scene = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41);
    for (payloads, expected) in [(&[][..], false), (&[&[1][..], COLUMN, EOF_PACKET, b"\x017"][..], true)] {
        let (near, _client) = UnixStream::pair().unwrap();
        let mut lane = Lane::new(Stream::unix(near));
        let (mut connection, mut server) = ServerConnection::for_tests(KeyId(0), Permit::unlimited());
        let slot = Slot::new(1);
        server.write_all(&packets(payloads)).await.unwrap();
        drop(server);
        let relay = Relay::new(&mut lane, &slot, scene.grammar, false, scene.options);
        let ended = relay.run(&mut connection).await;
        assert!(matches!(ended, Err(RelayError::Server { answered, .. }) if answered == expected));
    }
}

#[tokio::test]
async fn a_file_is_sent_only_for_a_statement_that_loads_one() {
    let scene = Scene::new(Grammar::Query, Capabilities::PROTOCOL_41);
    let (reply, got) = scene.play(&packets(&[b"\xfb/etc/passwd"]), 4096).await;
    assert!(matches!(reply, Err(RelayError::UnexpectedInfile)));
    assert!(got.is_empty());
}

/// Clients number the packets inside compressed ones by the outer packets; servers want them in order.
#[tokio::test]
async fn packets_of_a_compressed_client_are_numbered_anew() {
    let (near, mut client) = UnixStream::pair().unwrap();
    let mut lane = Lane::new(Stream::unix(near).compressed(Algorithm::Zlib));
    let (mut connection, mut server) = ServerConnection::for_tests(KeyId(0), Permit::unlimited());
    server.write_all(&packets(&[b"\xfbfile"])).await.unwrap();
    let mut framed = Vec::new();
    for (wrong_number, payload) in [(77, &b"1,a\n"[..]), (3, b"")] {
        write_packet(&mut framed, wrong_number, payload);
    }
    let mut compressed = Vec::new();
    Compressor::new(Algorithm::Zlib).write(&framed, &mut compressed);
    client.write_all(&compressed).await.unwrap();
    let slot = Slot::new(1);
    let options = RelayOptions { infile_allowed: true, ..RelayOptions::default() };
    let relay = Relay::new(&mut lane, &slot, Grammar::Query, false, options);
    let answer = async {
        let mut got = [0; 12];
        server.read_exact(&mut got).await.unwrap();
        server.write_all(&[7, 0, 0, 4]).await.unwrap();
        server.write_all(OK).await.unwrap();
        got
    };
    let (reply, got) = tokio::join!(relay.run(&mut connection), answer);
    assert_eq!(reply.unwrap().error, None);
    assert_eq!(&got, b"\x04\0\0\x021,a\n\0\0\0\x03");
}
