//! Both sides against each other.

use std::sync::Arc;

use super::*;
use crate::err::ErrPacket;
use crate::handshake::NONCE_LEN;
use crate::ok::OkPacket;

const NONCE: [u8; NONCE_LEN] = *b"ab3XFH:ls6/-fKc<>hd2";
/// SHA256-crypt of `pw-c1` by MySQL 9.7.
const CACHING: &[u8] =
    b"$A$00A$\x7fpd\x17tf:(+\x04Q\x17Pn,\x1dE\x01:\x06hG56C80TTe1bLBXwUNc4YIFSTyPrwFgpOg0N/DtEAZ9";
/// SHA256-crypt of `pw-s2` by MySQL 9.7.
const SHA256: &[u8] = b"$5$\x1c\x7f\\uZ94WN>zb_\x1br`u\x0eOh$L2MvXhhjH5Z9Pxistvp2sonURhXwExMV2v5GCHmrfD1";
/// `pw-n1` and `pw-e1` as MariaDB 10.11 stores them.
const NATIVE: &[u8] = b"*A3AE3CCEB51A659E3B67FA0CF007E16A004BDA34";
const ED25519: &[u8] = b"pT9pAuRge0lAtONS/B5FTWMCk115eomQk/8lgbzaBB0";

/// How an exchange went: the kind of credential, or why there is none; and what the server's side asked.
#[derive(Debug, PartialEq)]
struct Outcome {
    verdict: Result<&'static str, Denial>,
    asked: Vec<&'static str>,
}

struct Case {
    plugin: &'static str,
    stored: &'static [u8],
    typed: Credential,
    greeted: Plugin,
    channel: Channel,
    learnt: Option<&'static [u8]>,
}

impl Case {
    fn new(plugin: &'static str, stored: &'static [u8], typed: &[u8]) -> Self {
        Self {
            plugin,
            stored,
            typed: Credential::from_password(typed),
            greeted: Plugin::NativePassword,
            channel: Channel::Plain,
            learnt: None,
        }
    }

    fn greeted(self, greeted: Plugin) -> Self {
        Self { greeted, ..self }
    }

    fn over(self, channel: Channel) -> Self {
        Self { channel, ..self }
    }

    fn learnt(self, password: &'static [u8]) -> Self {
        Self { learnt: Some(password), ..self }
    }

    fn verification(&self) -> Verification {
        let verifier = match self.plugin {
            "clear" => Verifier::from_password(self.stored),
            plugin => Verifier::parse(plugin, self.stored),
        };
        Verification {
            verifier: Arc::new(verifier),
            nonce: NONCE,
            long_nonce: [5; LONG_NONCE_LEN],
            greeted: self.greeted,
            channel: self.channel,
            learnt: self.learnt.map(|password| Learnt {
                doubled: double_sha256(password),
                credential: Some(Arc::new(Credential::from_password(password))),
            }),
        }
    }

    /// Runs the exchange; the client's side is [`Login`].
    fn run(&self, key: &Arc<RsaKey>) -> Outcome {
        let secure = self.channel != Channel::Plain;
        let (mut login, first) =
            Login::start(Arc::new(self.typed.clone()), self.greeted.name().as_bytes(), &NONCE, secure);
        let mut next = self.verification().begin(Some(login.plugin().name().as_bytes()), first.payload());
        let mut asked = Vec::new();
        loop {
            let (payload, waiting) = match next {
                Next::Ask { payload, then } => (payload, then),
                Next::Key(wanted) => {
                    asked.push("key");
                    next = wanted.with(key);
                    continue;
                }
                Next::Work(work) => {
                    next = work.run();
                    continue;
                }
                Next::Verified(verified) => return Outcome { verdict: Ok(finish(login, &verified)), asked },
                Next::Denied(denied) => return Outcome { verdict: Err(denied.reason), asked },
            };
            asked.push(if payload[0] == AUTH_SWITCH { "switch" } else { "more" });
            match login.on_packet(&payload).expect("a packet that the client understands") {
                Reply::Send(answer, state) => {
                    login = state;
                    next = waiting.answer(answer.payload());
                }
                Reply::Wait(_) | Reply::Accepted | Reply::Refused => panic!("expected an answer"),
            }
        }
    }
}

/// Tells the client that it is in, and names what was proven.
fn finish(mut login: Login, verified: &Verified) -> &'static str {
    if let Some(prelude) = &verified.prelude {
        let Ok(Reply::Wait(state)) = login.on_packet(prelude) else { panic!("expected to wait") };
        login = state;
    }
    assert!(matches!(login.on_packet(&[OkPacket::HEADER]), Ok(Reply::Accepted)));
    match *verified.credential {
        Credential::Empty => "empty",
        Credential::Sha1(_) => "sha1",
        Credential::Clear(_) => "clear",
    }
}

fn wrong(given: bool) -> Result<&'static str, Denial> {
    Err(Denial::Password { given })
}

#[test]
fn exchanges() {
    use Channel::{Local, Plain, Tls};
    use Plugin::{CachingSha2, NativePassword};

    let key = Arc::new(RsaKey::generate().expect("a key"));
    let check = |case: Case, verdict, asked: &[&'static str]| {
        let expected = Outcome { verdict, asked: asked.to_vec() };
        assert_eq!(case.run(&key), expected, "{} over {:?}", case.plugin, case.channel);
    };
    let native = |typed| Case::new("mysql_native_password", NATIVE, typed);
    check(native(b"pw-n1"), Ok("sha1"), &[]);
    check(native(b"pw-n2"), wrong(true), &[]);
    check(native(b""), wrong(false), &[]);
    check(native(b"pw-n1").greeted(CachingSha2), Ok("sha1"), &["switch"]);
    check(Case::new("mysql_native_password", b"", b""), Ok("empty"), &[]);
    check(Case::new("mysql_native_password", b"", b"x"), wrong(true), &[]);
    check(Case::new("mysql_native_password", b"invalid", b"x"), unusable("mysql_native_password"), &[]);
    check(Case::new("unix_socket", b"", b""), unusable("unix_socket"), &[]);

    let caching = |typed| Case::new("caching_sha2_password", CACHING, typed).greeted(CachingSha2);
    check(caching(b"pw-c1"), Ok("clear"), &["more", "key", "more"]);
    check(caching(b"pw-c2"), wrong(true), &["more", "key", "more"]);
    check(caching(b""), wrong(false), &[]);
    check(caching(b"pw-c1").over(Tls), Ok("clear"), &["more"]);
    check(caching(b"pw-c2").over(Local), wrong(true), &["more"]);
    check(caching(b"pw-c1").learnt(b"pw-c1"), Ok("clear"), &[]);
    check(caching(b"pw-c2").learnt(b"pw-c1"), wrong(true), &["more", "key", "more"]);
    check(caching(b"pw-c1").greeted(NativePassword).over(Tls), Ok("clear"), &["switch", "more"]);
    check(Case::new("caching_sha2_password", b"", b"").greeted(CachingSha2), Ok("empty"), &[]);

    let sha256 = |typed| Case::new("sha256_password", SHA256, typed).greeted(CachingSha2);
    check(sha256(b"pw-s2"), Ok("clear"), &["switch", "key", "more"]);
    check(sha256(b"pw-s2").over(Tls), Ok("clear"), &["switch"]);
    check(sha256(b"pw-s3").over(Tls), wrong(true), &["switch"]);
    check(sha256(b"").over(Plain), wrong(false), &["switch"]);

    let ed25519 = |typed| Case::new("ed25519", ED25519, typed);
    check(ed25519(b"pw-e1"), Err(Denial::NeedsTls), &[]);
    check(ed25519(b"pw-e1").over(Tls), Ok("clear"), &["switch"]);
    check(ed25519(b"pw-e2").over(Tls), wrong(true), &["switch"]);
    check(ed25519(b"pw-e1").learnt(b"pw-e1"), Ok("clear"), &["switch"]);
    check(ed25519(b"pw-e2").learnt(b"pw-e1"), wrong(true), &["switch"]);

    for greeted in [NativePassword, CachingSha2] {
        check(Case::new("clear", b"pw", b"pw").greeted(greeted), Ok("clear"), &[]);
        check(Case::new("clear", b"pw", b"wp").greeted(greeted), wrong(true), &[]);
        check(Case::new("clear", b"pw", b"").greeted(greeted), wrong(false), &[]);
        check(Case::new("clear", b"", b"").greeted(greeted), Ok("empty"), &[]);
    }
}

fn unusable(plugin: &str) -> Result<&'static str, Denial> {
    Err(Denial::Unusable(plugin.into()))
}

/// What is learnt of a native login opens native logins only.
#[test]
fn sha1_answers_native_alone() {
    let verified = Case::new("mysql_native_password", NATIVE, b"pw-n1").verification();
    let (login, answer) =
        Login::start(Arc::new(Credential::from_password(b"pw-n1")), b"mysql_native_password", &NONCE, false);
    drop(login);
    let Next::Verified(verified) = verified.begin(Some(b"mysql_native_password"), answer.payload()) else {
        panic!("expected a right password");
    };
    let start =
        || Login::start(verified.credential.clone(), b"caching_sha2_password", &[1; NONCE_LEN], true).0;
    assert_eq!(start().plugin(), Plugin::NativePassword);
    let switch = |plugin: &str, data: &[u8]| AuthSwitch { plugin: plugin.as_bytes(), data }.to_payload();
    let nonce = [&[2; NONCE_LEN][..], &[0]].concat();
    assert!(matches!(start().on_packet(&switch("mysql_native_password", &nonce)), Ok(Reply::Send(..))));
    for plugin in ["caching_sha2_password", "sha256_password", "mysql_clear_password", "unheard_of"] {
        let refused = start().on_packet(&switch(plugin, &nonce));
        assert!(matches!(refused, Err(LoginError::Unfit { .. })), "{plugin}");
    }
}

#[test]
fn clients_without_plugins() {
    let begin = |plugin, stored| {
        let case = Case::new(plugin, stored, b"").greeted(Plugin::CachingSha2);
        case.verification().begin(None, &[])
    };
    assert!(matches!(begin("mysql_native_password", b""), Next::Verified(_)));
    assert!(matches!(
        begin("mysql_native_password", NATIVE),
        Next::Denied(Denied { reason: Denial::Password { given: false }, .. })
    ));
    assert!(matches!(
        begin("caching_sha2_password", CACHING),
        Next::Denied(Denied { reason: Denial::OldClient(Plugin::CachingSha2), .. })
    ));
}

#[test]
fn a_decoy_is_not_told_from_an_account() {
    for (decoy, real) in [
        (Verifier::decoy(Plugin::CachingSha2, [9; 20]), Verifier::parse("caching_sha2_password", CACHING)),
        (Verifier::decoy(Plugin::NativePassword, [9; 20]), Verifier::parse("mysql_native_password", NATIVE)),
    ] {
        let steps = |verifier| {
            let mut case = Case::new("", b"", b"wrong").over(Channel::Tls).verification();
            case.verifier = Arc::new(verifier);
            let mut seen = Vec::new();
            let mut next = case.begin(Some(b"caching_sha2_password"), &[7; 32]);
            for answer in [&[7; 32][..], b"wrong\0"] {
                let Next::Ask { payload, then } = next else { break };
                seen.push(payload);
                next = then.answer(answer);
                if let Next::Work(work) = next {
                    next = work.run();
                }
            }
            (seen, format!("{next:?}"))
        };
        assert_eq!(steps(decoy), steps(real));
    }
}

#[test]
fn answers_of_wrong_lengths_are_denied() {
    for (plugin, stored) in [("mysql_native_password", NATIVE), ("caching_sha2_password", CACHING)] {
        for len in 1..64 {
            let case = Case::new(plugin, stored, b"");
            let next = case.verification().begin(Some(plugin.as_bytes()), &vec![7; len]);
            assert!(matches!(next, Next::Denied(_) | Next::Ask { .. }), "{plugin} with {len} bytes");
        }
    }
}

#[test]
fn servers_that_talk_nonsense() {
    let start = || {
        Login::start(Arc::new(Credential::from_password(b"pw")), b"caching_sha2_password", &NONCE, false).0
    };
    for payload in
        [&[][..], &[0x05], &[AUTH_SWITCH], &[MORE_DATA], &[MORE_DATA, 9], b"\xfeclient_ed25519\0short"]
    {
        start().on_packet(payload).expect_err("no step of an authentication");
    }
    assert!(matches!(start().on_packet(&[ErrPacket::HEADER]), Ok(Reply::Refused)));
    let Ok(Reply::Send(request, asking)) = start().on_packet(&[MORE_DATA, 4]) else {
        panic!("expected a request for the key");
    };
    assert_eq!(request.payload(), [2]);
    asking.on_packet(b"\x01no key").expect_err("no key");
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!(
        "{:?} {:?} {:?}",
        Credential::from_password(b"pw-secret"),
        Verifier::from_password(b"pw-secret"),
        Case::new("clear", b"pw-secret", b"").verification()
    );
    assert!(!shown.contains("secret") && !shown.contains("112, 119"), "{shown}");
}

#[test]
fn the_proof_of_a_certificate() {
    // SHA256 of "stored", twenty times "n", thirty-two times "f", by sha256sum.
    let proof = certificate_proof(b"stored", &[b'n'; 20], &[b'f'; 32]);
    assert_eq!(proof[0], 1);
    assert_eq!(&proof[1..], b"49026B1D19FA464CFAE0C956A407D5E78EE631613D2E035DEB5B7E2918E63286");
}

/// A password that was changed meanwhile is recognised without another word of the client.
#[test]
fn evidence_is_held_against_what_is_stored_now() {
    let old = "*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29";
    let stale = |plugin: &'static str, stored: &'static [u8], typed: &[u8]| {
        let case = Case::new(plugin, stored, typed).over(Channel::Tls);
        let (login, first) =
            Login::start(Arc::new(case.typed.clone()), case.greeted.name().as_bytes(), &NONCE, true);
        let name = login.plugin().name().as_bytes();
        match case.verification().begin(Some(name), first.payload()) {
            Next::Denied(Denied { evidence: Some(evidence), .. }) => evidence,
            Next::Denied(_) | Next::Ask { .. } | Next::Key(_) | Next::Work(_) | Next::Verified(_) => {
                panic!("expected a denial with evidence")
            }
        }
    };
    let again = |evidence: Evidence, plugin, stored| {
        let mut next = evidence.against(Case::new(plugin, stored, b"").verification(), None);
        if let Next::Work(work) = next {
            next = work.run();
        }
        matches!(next, Next::Verified(_))
    };
    let native = || stale("mysql_native_password", old.as_bytes(), b"pw-n1");
    assert!(again(native(), "mysql_native_password", NATIVE));
    assert!(!again(native(), "mysql_native_password", old.as_bytes()));
    assert!(!again(native(), "caching_sha2_password", CACHING));
    assert!(again(stale("mysql_native_password", NATIVE, b""), "mysql_native_password", b""));
    assert!(!again(stale("mysql_native_password", NATIVE, b""), "mysql_native_password", NATIVE));
    let switched = native().against(
        Case::new("caching_sha2_password", CACHING, b"").verification(),
        Some(b"caching_sha2_password"),
    );
    assert!(matches!(switched, Next::Ask { payload, .. } if payload[0] == AUTH_SWITCH));
    let clear = Evidence::Clear(b"pw-c1".to_vec().into());
    assert!(again(clear, "caching_sha2_password", CACHING));
}

#[test]
fn change_of_user() {
    let verdict = |next: Next| match next {
        Next::Verified(_) => "in",
        Next::Ask { payload, .. } if payload[0] == AUTH_SWITCH => "switch",
        Next::Denied(_) => "out",
        Next::Ask { .. } | Next::Key(_) | Next::Work(_) => "other",
    };
    let begin = |plugin: &'static str, stored: &'static [u8], offered: Option<&str>, typed: &[u8]| {
        let case = Case::new(plugin, stored, b"").learnt(b"pw-c1");
        let offered_plugin = offered.unwrap_or("mysql_native_password").as_bytes();
        let credential = Arc::new(Credential::from_password(typed));
        let (_, answer) = Login::start(credential, offered_plugin, &NONCE, false);
        verdict(case.verification().begin_again(offered.map(str::as_bytes), answer.payload()))
    };
    let native = Some("mysql_native_password");
    let caching = Some("caching_sha2_password");
    assert_eq!(begin("mysql_native_password", NATIVE, native, b"pw-n1"), "in");
    assert_eq!(begin("mysql_native_password", NATIVE, native, b"pw-n2"), "switch");
    assert_eq!(begin("mysql_native_password", NATIVE, native, b""), "switch");
    assert_eq!(begin("mysql_native_password", NATIVE, caching, b"pw-n1"), "switch");
    assert_eq!(begin("mysql_native_password", NATIVE, None, b"pw-n1"), "in");
    assert_eq!(begin("mysql_native_password", NATIVE, None, b"pw-n2"), "out");
    assert_eq!(begin("mysql_native_password", b"", native, b""), "in");
    assert_eq!(begin("caching_sha2_password", CACHING, caching, b"pw-c1"), "in");
    assert_eq!(begin("caching_sha2_password", CACHING, caching, b"pw-c2"), "switch");
    assert_eq!(begin("caching_sha2_password", CACHING, None, b"pw-c1"), "out");
    assert_eq!(begin("unix_socket", b"", native, b""), "out");
}
