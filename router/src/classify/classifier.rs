//! The classifier of one worker: digest, cache, and the readers behind it.

use std::sync::Arc;

use super::cache::{Cache, Key};
use super::digest::{Digest, Digester};
use super::directive;
use super::draft::Draft;
use super::mode::{Catalogue, Mode};
use super::scan::Scan;
use super::statement;
use super::text::Text;
use super::token::{TokenKind, Traits};
use crate::intent::{Effects, Hint, Intent, Kind, Needs, Reason, Target};

/// A statement's intent and digest.
#[derive(Clone, Debug)]
pub struct Classified {
    pub intent: Arc<Intent>,
    pub digest: Digest,
}

impl Classified {
    /// Takes a query attribute of the statement for what a comment of the same content would say; most say nothing.
    #[must_use]
    pub fn with_attribute(mut self, name: &[u8], value: &[u8]) -> Self {
        let Some(hint) = directive::of_attribute(name, value) else { return self };
        let intent = Arc::make_mut(&mut self.intent);
        intent.hint = directive::stricter(intent.hint, Some(hint));
        let leaves = matches!(intent.target, Target::Replica | Target::Any);
        if leaves && intent.hint == Some(Hint::Primary) {
            keep_on_primary(intent, "a query attribute asks for the primary");
        }
        self
    }
}

/// Classifies statements; one per worker.
#[derive(Debug)]
pub struct Classifier {
    digester: Digester,
    cache: Cache,
    scan: Scan,
}

impl Classifier {
    /// `seed` keys the digests and must be random; `slots` is the size of the cache, in statements.
    pub fn new(seed: [u8; 32], slots: usize) -> Self {
        let (mut key, rest) = ([0; 16], &seed[16..]);
        for (key, (one, other)) in key.iter_mut().zip(seed.iter().zip(rest)) {
            *key = one ^ other;
        }
        Self { digester: Digester::new(key), cache: Cache::new(slots), scan: Scan::default() }
    }

    /// What `sql` does in a session of this mode. Any bytes will do.
    pub fn classify(&mut self, sql: &[u8], mode: &Mode, catalogue: &Catalogue) -> Classified {
        self.scan.read(sql, mode);
        let (digest, whole) = self.digester.digest(&self.scan, sql);
        let key = Key { digest: digest.0, ground: Some((mode.bits(), catalogue.version)) };
        let cacheable = whole && self.scan.traits.is_empty();
        if cacheable && let Some(intent) = self.cache.find(&key) {
            return Classified { intent: Arc::clone(intent), digest };
        }
        let (intent, reads_no_literals) = decide(&mut self.scan, sql, mode, catalogue);
        let intent = Arc::new(intent);
        if cacheable && reads_no_literals {
            self.cache.insert(key, Arc::clone(&intent));
        }
        Classified { intent, digest }
    }

    /// A replica refused the statement as a write: while it is remembered, it goes to the primary.
    pub fn mark_primary(&mut self, classified: &Classified) {
        let mut intent = Intent::clone(&classified.intent);
        keep_on_primary(&mut intent, "a replica refused it as a write");
        let key = Key { digest: classified.digest.0, ground: None };
        self.cache.insert(key, Arc::new(intent));
    }
}

fn keep_on_primary(intent: &mut Intent, why: &'static str) {
    intent.target = Target::Primary;
    intent.reason = Reason(why.into());
    if intent.kind == Kind::Read {
        intent.kind = Kind::UnprovenRead;
    }
}

/// What the scanned text does, and whether that holds for all statements of its digest.
pub(super) fn decide(scan: &mut Scan, sql: &[u8], mode: &Mode, catalogue: &Catalogue) -> (Intent, bool) {
    let hint = take_comments(scan, sql);
    let text = Text { sql, tokens: &scan.tokens, mode };
    let mut draft = statement::whole(&text, catalogue);
    doubt(&mut draft, scan, mode);
    if hint == Some(Hint::Primary) {
        draft.restrain("a comment asks for the primary");
    }
    let cacheable = draft.cacheable;
    (draft.finish(hint), cacheable)
}

/// Takes the comments that are tokens out of the tokens, and gives what they ask for.
fn take_comments(scan: &mut Scan, sql: &[u8]) -> Option<Hint> {
    let mut hint = None;
    scan.tokens.retain(|token| {
        if token.kind == TokenKind::Directive {
            hint = directive::stricter(hint, directive::of_comment(token.text(sql)));
        }
        !token.is_comment()
    });
    hint
}

/// Keeps what is doubtful for reasons outside of the tokens away from replicas.
fn doubt(draft: &mut Draft, scan: &Scan, mode: &Mode) {
    let traits = scan.traits;
    if scan.more_statements {
        draft.effects |= Effects::UNKNOWN_STATE | Effects::MAY_COMMIT;
        draft.needs |= Needs::MULTI_STATEMENTS;
        draft.kind = Kind::Multi;
    }
    if traits.contains(Traits::DOUBT) {
        draft.effects |= Effects::UNKNOWN_STATE;
    }
    let reasons = [
        (traits.contains(Traits::DOUBT), "servers may read this text in another way"),
        (traits.contains(Traits::UNTERMINATED), "a quote or a comment does not end"),
        (traits.contains(Traits::FOREIGN_TEXT), "quoted bytes may hide a quote in this character set"),
        (scan.cut, "too long to be read whole"),
        (!mode.sql_mode_known, "the session's sql_mode is not known"),
        (mode.temporary_tables && draft.target == Target::Replica, "the session has temporary tables"),
        (mode.system_schema && draft.target == Target::Replica, "the current schema describes the server"),
    ];
    for (holds, why) in reasons {
        if holds {
            draft.restrain(why);
        }
    }
}
