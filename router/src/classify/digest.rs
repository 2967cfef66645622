//! The digest of a statement: a keyed hash of its normal form.
//!
//! The normal form holds the tokens with words in lower case, literals as `?` and a blank after each. It keeps all
//! that the meaning of a statement can depend on except the values of literals, and the key is random per process,
//! so that nobody can make a write that has the digest of a read.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::byte_class::LOWER;
use super::functions;
use super::scan::Scan;
use super::token::{Token, TokenKind};

/// The longest normal form, in bytes; of a longer one the start is hashed.
const MAX_FORM_BYTES: usize = 16 * 1024;

/// Marks a member's name: `t.for` and `t. for` are different statements.
const MEMBER_MARK: u8 = 1;
/// Marks a gap before the parenthesis of a call where it decides what is called.
const GAP_MARK: u8 = 2;

/// The digest of a statement's normal form, keyed at random per process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub u128);

/// 32 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Makes digests, all with the same key.
#[derive(Debug)]
pub(super) struct Digester {
    key: [u8; 16],
    form: Vec<u8>,
}

impl Digester {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key, form: Vec::with_capacity(MAX_FORM_BYTES) }
    }

    /// The digest of the tokens, and whether it covers all of them.
    pub(super) fn digest(&mut self, scan: &Scan, sql: &[u8]) -> (Digest, bool) {
        let whole = write_form(&mut self.form, &scan.tokens, sql) && !scan.cut;
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(&self.form);
        (Digest(hasher.finish128().as_u128()), whole)
    }
}

/// Writes the normal form in place of what `form` holds; false where it was cut.
pub(super) fn write_form(form: &mut Vec<u8>, tokens: &[Token], sql: &[u8]) -> bool {
    form.clear();
    let mut before: Option<&Token> = None;
    for token in tokens {
        let text = token.text(sql);
        if form.len() + text.len() + 2 > MAX_FORM_BYTES {
            return false;
        }
        match token.kind {
            TokenKind::Number | TokenKind::Text | TokenKind::Parameter => form.push(b'?'),
            TokenKind::Word | TokenKind::UserVariable | TokenKind::SystemVariable => {
                form.extend(text.iter().map(|byte| LOWER[usize::from(*byte)]));
            }
            TokenKind::Member => {
                form.push(MEMBER_MARK);
                form.extend_from_slice(text);
            }
            TokenKind::Symbol(b'(') if token.gap && gap_matters(before, sql) => form.extend([GAP_MARK, b'(']),
            TokenKind::Symbol(symbol) => form.push(symbol),
            TokenKind::QuotedName | TokenKind::Assign | TokenKind::OptimizerHint | TokenKind::Directive => {
                form.extend_from_slice(text)
            }
        }
        form.push(b' ');
        before = Some(token);
    }
    true
}

fn gap_matters(before: Option<&Token>, sql: &[u8]) -> bool {
    before.is_some_and(|token| token.kind == TokenKind::Word && functions::needs_adjacency(token.text(sql)))
}
