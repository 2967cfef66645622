//! Both sides of an authentication.

use std::sync::{Arc, LazyLock};

use pointsman_protocol::auth::{
    AuthSwitch, Channel, Credential, LONG_NONCE_LEN, Learnt, Login, Next, Plugin, Reply, RsaKey, Sha256Crypt,
    Verification, Verifier,
};
use pointsman_protocol::handshake::NONCE_LEN;

use crate::option;

static KEY: LazyLock<Arc<RsaKey>> = LazyLock::new(|| Arc::new(RsaKey::generate().expect("a key")));

/// Nobody is let in by chance, and no peer's bytes do harm.
pub fn check(data: &[u8]) {
    let (chosen, rest) = option(data);
    if let Ok(switch) = AuthSwitch::parse(rest) {
        let payload = switch.to_payload();
        assert_eq!(AuthSwitch::parse(&payload), Ok(switch));
    }
    let _caching = Sha256Crypt::parse_caching(rest);
    let _plain = Sha256Crypt::parse_plain(rest);
    if chosen & 1 == 0 { client(chosen >> 1, rest) } else { server(chosen >> 1, rest) }
}

/// Packets, each with its length in one byte before it.
fn packets(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first()?;
        let (packet, later) = after.split_at(after.len().min(usize::from(*len)));
        rest = later;
        Some(packet)
    })
}

/// A client that tries to log in to us.
fn client(chosen: u8, rest: &[u8]) {
    let verifier = match chosen & 7 {
        0 => Verifier::decoy(Plugin::NativePassword, [7; 20]),
        1 => Verifier::decoy(Plugin::CachingSha2, [7; 20]),
        2 => Verifier::from_password(b"a password that no fuzzer guesses"),
        3 => {
            Verifier::parse("sha256_password", format!("$5${}${}", "s".repeat(20), "!".repeat(43)).as_bytes())
        }
        4 => Verifier::parse("ed25519", "A".repeat(43).as_bytes()),
        5 => Verifier::parse("unix_socket", b""),
        6 => Verifier::parse("mysql_native_password", rest),
        _ => Verifier::parse("caching_sha2_password", rest),
    };
    let open = matches!(verifier, Verifier::Empty);
    let verification = Verification {
        verifier: Arc::new(verifier),
        nonce: [1; NONCE_LEN],
        long_nonce: [2; LONG_NONCE_LEN],
        greeted: if chosen & 8 == 0 { Plugin::NativePassword } else { Plugin::CachingSha2 },
        channel: [Channel::Plain, Channel::Tls, Channel::Local][usize::from(chosen >> 4 & 3).min(2)],
        learnt: (chosen & 64 != 0).then_some(Learnt { doubled: [3; 32].into(), credential: None }),
    };
    let mut packets = packets(rest);
    let plugin = packets.next();
    let mut next = verification.begin(plugin, packets.next().unwrap_or_default());
    loop {
        next = match next {
            Next::Ask { then, .. } => match packets.next() {
                Some(packet) => then.answer(packet),
                None => return,
            },
            Next::Key(wanted) => wanted.with(&KEY),
            // What is worked on is a hash, at thousands of rounds.
            Next::Work(_) | Next::Denied(_) => return,
            Next::Verified(_) => {
                assert!(open, "let in with {rest:02x?}");
                return;
            }
        };
    }
}

/// A server that we log in to.
fn server(chosen: u8, rest: &[u8]) {
    let credential = match chosen & 3 {
        0 => Credential::Empty,
        1 => Credential::from_password(b"password"),
        _ => Credential::Sha1([5; 20].into()),
    };
    let mut packets = packets(rest);
    let plugin = packets.next().unwrap_or_default();
    let (mut login, _answer) = Login::start(Arc::new(credential), plugin, &[1; NONCE_LEN], chosen & 4 != 0);
    for packet in packets {
        login = match login.on_packet(packet) {
            Ok(Reply::Send(_, login) | Reply::Wait(login)) => login,
            Ok(Reply::Accepted | Reply::Refused) | Err(_) => return,
        };
    }
}
