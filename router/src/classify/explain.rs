//! The same decision as in the data path, with what was seen on the way: for people.

use std::ops::Range;

use super::classifier::decide;
use super::digest::write_form;
use super::functions;
use super::keywords;
use super::lexer::Lexer;
use super::mode::{Catalogue, Mode};
use super::scan::Scan;
use super::survey::survey;
use super::text::Text;
use super::token::{Token, TokenKind};
use crate::intent::Intent;

/// What a statement does, and how its tokens were read.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub intent: Intent,
    pub tokens: Vec<ExplainedToken>,
}

/// One token of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedToken {
    /// Its bytes in the statement.
    pub range: Range<usize>,
    /// What it is: `word`, `name`, `number`, `string`, and so on.
    pub class: &'static str,
    /// What it says about the statement; empty for most.
    pub note: &'static str,
}

/// What `sql` does in a session of this mode, on servers with this catalogue.
pub fn explain(sql: &[u8], mode: &Mode, catalogue: &Catalogue) -> Explanation {
    let mut scan = Scan::default();
    scan.read(sql, mode);
    let (intent, _) = decide(&mut scan, sql, mode, catalogue);
    Explanation { intent, tokens: explained(sql, mode, catalogue) }
}

/// The normal form of a statement, without the values of its literals: for logs and for rules by digest.
pub fn normal_form(sql: &[u8], mode: &Mode) -> String {
    let mut scan = Scan::default();
    scan.read(sql, mode);
    scan.tokens.retain(|token| !matches!(token.kind, TokenKind::Directive));
    let mut form = Vec::new();
    write_form(&mut form, &scan.tokens, sql);
    form.retain(|byte| *byte >= b' ');
    String::from_utf8_lossy(&form).trim_end().to_owned()
}

fn explained(sql: &[u8], mode: &Mode, catalogue: &Catalogue) -> Vec<ExplainedToken> {
    let mut lexer = Lexer::new(sql, mode);
    let all: Vec<Token> = std::iter::from_fn(|| lexer.next_token()).collect();
    let code: Vec<Token> = all.iter().filter(|token| !token.is_comment()).copied().collect();
    let text = Text { sql, tokens: &code, mode };
    let mut notes: Vec<(usize, &'static str)> = Vec::new();
    for part in text.split(b';') {
        let objections = survey(&part, catalogue).objections;
        notes.extend(
            objections.iter().filter_map(|objection| {
                part.token(objection.token).map(|token| (token.start, objection.why))
            }),
        );
        notes.extend((0..part.len()).filter_map(|at| praise(&part, at)));
    }
    all.iter().map(|token| explain_token(token, &notes)).collect()
}

/// What speaks for a token before a parenthesis.
fn praise(text: &Text<'_>, at: usize) -> Option<(usize, &'static str)> {
    if text.kind(at) != Some(TokenKind::Word) || !text.symbol(at + 1, b'(') {
        return None;
    }
    let lower = text.bytes(at).to_ascii_lowercase();
    let note = if keywords::precedes_parenthesis(text.mode.flavour, &lower) {
        "keyword"
    } else {
        functions::pure(text.mode.flavour, &lower).map(|_| "pure built-in function")?
    };
    Some((text.token(at)?.start, note))
}

fn explain_token(token: &Token, notes: &[(usize, &'static str)]) -> ExplainedToken {
    let class = match token.kind {
        TokenKind::Word => "word",
        TokenKind::Member | TokenKind::QuotedName => "name",
        TokenKind::Number => "number",
        TokenKind::Text => "string",
        TokenKind::Parameter => "parameter",
        TokenKind::UserVariable => "user variable",
        TokenKind::SystemVariable => "system variable",
        TokenKind::Assign => "assignment",
        TokenKind::OptimizerHint => "optimizer hint",
        TokenKind::Directive => "directive",
        TokenKind::Symbol(_) => "symbol",
    };
    let note = notes.iter().find(|(start, _)| *start == token.start).map_or("", |(_, note)| note);
    ExplainedToken { range: token.range(), class, note }
}
