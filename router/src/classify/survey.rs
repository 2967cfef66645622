//! The scanner's own proof: walks the tokens of one statement and collects all that speaks against a pure read.
//!
//! It allows by list: a call must be a listed pure function, a keyword must not be one of those that lock or write.
//! What it does not know is an objection.

use super::functions::{self, Condition};
use super::keywords;
use super::mode::Catalogue;
use super::special::{self, Special};
use super::text::Text;
use super::token::TokenKind;
use crate::intent::{Effects, Flavour, Kind, Needs, Target};

/// The longest word that is looked up: a name of 64 characters, of three bytes each.
const MAX_WORD_BYTES: usize = 192;

/// What walking over a statement showed.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) effects: Effects,
    pub(super) needs: Needs,
    /// In the order of the text.
    pub(super) objections: Vec<Objection>,
    /// Tables are read.
    pub(super) reads_tables: bool,
    /// Functions are called.
    pub(super) calls: bool,
    /// The value of a literal decided.
    pub(super) literals_matter: bool,
}

/// Why a statement is not a pure read, or not one that any server can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) token: usize,
    pub(super) kind: Kind,
    pub(super) target: Target,
    pub(super) why: &'static str,
}

impl Survey {
    /// The objection that decides: what must go to the primary before what is the session's.
    pub(super) fn worst(&self) -> Option<Objection> {
        // The first of equals.
        self.objections.iter().rev().max_by_key(|objection| objection.weight()).copied()
    }
}

impl Objection {
    fn weight(&self) -> u8 {
        match (self.target, self.kind) {
            (Target::Primary, Kind::Lock) => 4,
            (Target::Primary, Kind::ServerQuestion) => 2,
            (Target::Primary, _) => 3,
            (_, Kind::UnprovenRead) => 0,
            (_, _) => 1,
        }
    }
}

/// Walks over all tokens of a statement, or of a part of one.
pub(super) fn survey(text: &Text<'_>, catalogue: &Catalogue) -> Survey {
    let mut walk = Walk { text, catalogue, found: Survey::default(), parentheses: Vec::new() };
    for at in 0..text.len() {
        walk.token(at);
    }
    walk.found
}

struct Walk<'a> {
    text: &'a Text<'a>,
    catalogue: &'a Catalogue,
    found: Survey,
    /// The open parentheses.
    parentheses: Vec<Parenthesis>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parenthesis {
    Plain,
    /// Of SUBSTRING, which has a FOR of its own.
    Substring,
    /// Of EXTRACT, TRIM and SUBSTRING, which have a FROM of their own.
    WithFrom,
}

impl Walk<'_> {
    fn token(&mut self, at: usize) {
        let Some(kind) = self.text.kind(at) else { return };
        match kind {
            TokenKind::Word => self.word(at),
            TokenKind::Member | TokenKind::QuotedName => self.name(at),
            TokenKind::UserVariable => self.user_variable(at),
            TokenKind::SystemVariable => self.special(at, special::variable(&system_variable(self.text, at))),
            TokenKind::Symbol(b'(') => {
                if at == 0 || !self.is_callable(at - 1) || self.text.is(at - 1, "for") {
                    self.open(at, Parenthesis::Plain);
                }
            }
            TokenKind::Symbol(b')') => {
                self.parentheses.pop();
            }
            TokenKind::Symbol(b'\\' | b':' | b';') => self.object(at, "a character outside of strings"),
            TokenKind::Assign if at == 0 || self.text.kind(at - 1) != Some(TokenKind::UserVariable) => {
                self.object(at, "assigns");
            }
            TokenKind::Assign
            | TokenKind::Number
            | TokenKind::Text
            | TokenKind::Parameter
            | TokenKind::OptimizerHint
            | TokenKind::Directive
            | TokenKind::Symbol(_) => {}
        }
    }

    fn is_callable(&self, at: usize) -> bool {
        matches!(self.text.kind(at), Some(TokenKind::Word | TokenKind::Member | TokenKind::QuotedName))
    }

    fn object(&mut self, at: usize, why: &'static str) {
        let objection = Objection { token: at, kind: Kind::UnprovenRead, target: Target::Primary, why };
        self.found.objections.push(objection);
    }

    fn special(&mut self, at: usize, special: Special) {
        self.found.effects |= special.effects;
        self.found.needs |= special.needs;
        let Special { kind, target, why, .. } = special;
        self.found.objections.push(Objection { token: at, kind, target, why });
    }

    /// A parenthesis at `at`; no number or string can be called.
    fn open(&mut self, at: usize, parenthesis: Parenthesis) {
        if at > 0 && self.text.token(at - 1).is_some_and(|before| before.is_literal()) {
            self.object(at, "a parenthesis behind a literal");
        }
        self.parentheses.push(parenthesis);
    }

    fn user_variable(&mut self, at: usize) {
        if self.text.kind(at + 1) == Some(TokenKind::Assign) {
            self.found.effects |= Effects::UNTRACKED_USER_VARIABLE;
            self.object(at, "assigns a user variable");
            return;
        }
        let read = Special {
            kind: Kind::UnprovenRead,
            target: Target::Session,
            effects: Effects::empty(),
            needs: Needs::USER_VARIABLES,
            why: "reads a user variable",
        };
        self.special(at, read);
    }

    fn word(&mut self, at: usize) {
        let mut buffer = [0; MAX_WORD_BYTES];
        let bytes = self.text.bytes(at);
        let lower = lower_case(bytes, &mut buffer);
        if !bytes.is_ascii() {
            self.foreign_word(at, bytes);
        }
        if bytes.first() == Some(&b'$') && self.text.mode.flavour == Flavour::Mysql {
            self.object(at, "may begin a string in dollar quotes");
        }
        if self.text.symbol(at + 1, b'(') && lower != b"for" {
            self.call(at, lower);
            return;
        }
        if let Some(why) = keywords::forbidden(lower) {
            self.forbidden(at, lower, why);
        }
        match lower {
            b"from" | b"table" if !self.text.is(at + 1, "dual") => {
                self.found.reads_tables |= self.parentheses.last() != Some(&Parenthesis::WithFrom);
            }
            b"sql_calc_found_rows" => self.found.effects |= Effects::CALC_FOUND_ROWS,
            _ => self.found.calls |= keywords::calls_by_itself(lower),
        }
        self.table_or_schema(at, lower);
    }

    /// A word with bytes of 0x80 and above. Some character sets have white space there (0xA0 in latin1: verified
    /// on both servers), so its pieces are read as words too.
    fn foreign_word(&mut self, at: usize, bytes: &[u8]) {
        self.found.reads_tables = true;
        let mut buffer = [0; MAX_WORD_BYTES];
        for piece in bytes.split(|byte| !byte.is_ascii()) {
            let lower = lower_case(piece, &mut buffer);
            if let Some(why) = keywords::forbidden(lower) {
                self.object(at, why);
            }
        }
    }

    fn forbidden(&mut self, at: usize, lower: &[u8], why: &'static str) {
        if lower == b"for" && self.is_harmless_for(at) {
            return;
        }
        if lower == b"into" && self.text.kind(at + 1) == Some(TokenKind::UserVariable) {
            self.found.effects |= Effects::UNTRACKED_USER_VARIABLE;
        }
        self.object(at, why);
    }

    /// A FOR that is not a locking clause: of SUBSTRING, of an index hint, of JSON_TABLE, of a versioned table.
    fn is_harmless_for(&self, at: usize) -> bool {
        let text = self.text;
        if text.is_any(at + 1, &["update", "share"]) {
            return false;
        }
        let index = at > 0 && text.is_any(at - 1, &["index", "key"]);
        self.parentheses.last() == Some(&Parenthesis::Substring)
            || (index && text.is_any(at + 1, &["join", "order", "group"]))
            || (text.is(at + 1, "ordinality") && !self.parentheses.is_empty())
            || (text.is(at + 1, "system_time") && text.mode.flavour == Flavour::Mariadb)
    }

    /// A quoted name or a member's name.
    fn name(&mut self, at: usize) {
        let Some(name) = self.text.name(at) else {
            self.object(at, "a name without end");
            return;
        };
        let mut buffer = [0; MAX_WORD_BYTES];
        let lower = lower_case(&name, &mut buffer);
        if self.text.symbol(at + 1, b'(') {
            self.open(at + 1, Parenthesis::Plain);
            if !self.names_columns(at) {
                self.stored_function(at, lower);
            }
            return;
        }
        self.table_or_schema(at, lower);
    }

    /// A word with a parenthesis behind it.
    fn call(&mut self, at: usize, lower: &[u8]) {
        let parenthesis = match lower {
            b"substring" | b"substr" | b"mid" => Parenthesis::Substring,
            b"extract" | b"trim" => Parenthesis::WithFrom,
            _ => Parenthesis::Plain,
        };
        self.open(at + 1, parenthesis);
        let flavour = self.text.mode.flavour;
        if keywords::precedes_parenthesis(flavour, lower)
            || (keywords::follows_operand(lower) && self.is_behind_operand(at))
        {
            return;
        }
        if at > 0 && self.text.symbol(at - 1, b'.') {
            self.stored_function(at, lower);
            return;
        }
        self.found.calls = true;
        if matches!(lower, b"extractvalue" | b"updatexml") && self.has_plain_path(at + 1) {
            self.found.literals_matter = true;
        } else if let Some(special) = special::function(lower, !self.text.symbol(at + 2, b')')) {
            self.special(at, special);
        } else if self.catalogue.functions.contains(lower) {
            self.found.needs |= Needs::STOPPED_BY_READ_ONLY;
        } else if let Some(condition) = functions::pure(flavour, lower) {
            if !self.holds(condition, at) {
                self.unknown_function(at, "may call a stored function in place of the built-in one");
            }
        } else if !self.names_columns(at) {
            self.unknown_function(at, "calls a function that is not known to be pure");
        }
    }

    /// Whether the second argument is a string that names no user variable. Others may: `'//a[$@v]'`.
    fn has_plain_path(&self, open: usize) -> bool {
        let Some(close) = self.text.close_of(open) else { return false };
        let arguments = Text { tokens: &self.text.tokens[open + 1..close], ..*self.text }.split(b',');
        arguments.get(1).is_some_and(|path| {
            path.len() == 1 && path.kind(0) == Some(TokenKind::Text) && !path.bytes(0).contains(&b'$')
        })
    }

    /// Whether no expression can begin at `at`: behind a literal, a parenthesis, or `MATCH name, name`.
    fn is_behind_operand(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1).and_then(|before| self.text.token(before)) else { return false };
        if before.is_literal() || before.is_symbol(b')') {
            return true;
        }
        let names = |kind: TokenKind| {
            matches!(
                kind,
                TokenKind::Word | TokenKind::Member | TokenKind::QuotedName | TokenKind::Symbol(b'.' | b',')
            )
        };
        let list = self.text.tokens[..at].iter().rev().take_while(|token| names(token.kind)).count();
        !before.is_symbol(b',') && (at - list..at.saturating_sub(1)).any(|word| self.text.is(word, "match"))
    }

    fn unknown_function(&mut self, at: usize, why: &'static str) {
        self.found.effects |= Effects::UNKNOWN_STATE;
        self.object(at, why);
    }

    /// A call by a qualified or quoted name, which no built-in function needs.
    fn stored_function(&mut self, at: usize, lower: &[u8]) {
        self.found.calls = true;
        if self.catalogue.functions.contains(lower) {
            self.found.needs |= Needs::STOPPED_BY_READ_ONLY;
        } else {
            self.unknown_function(at, "calls a stored function");
        }
    }

    /// Whether the call of the word at `at` is the built-in function.
    fn holds(&self, condition: Condition, at: usize) -> bool {
        let text = self.text;
        match condition {
            Condition::Always => true,
            Condition::Adjacent => {
                text.mode.ignore_space || text.token(at + 1).is_some_and(|parenthesis| !parenthesis.gap)
            }
            Condition::Arguments => !text.symbol(at + 2, b')'),
            Condition::TwoArguments => text.commas(at + 1) == Some(1),
            Condition::Table => {
                let inside = text.close_of(at + 1).map_or(at + 2..at + 2, |close| at + 2..close);
                inside.into_iter().any(|word| {
                    text.is(word, "columns")
                        && text.symbol(word + 1, b'(')
                        && text.token(word - 1).is_some_and(|before| before.is_literal())
                })
            }
            Condition::Catalogue => self.catalogue.version != 0,
        }
    }

    /// Whether the parenthesis behind a name lists columns: `AS t (a, b)`, `WITH c (a, b) AS (`.
    fn names_columns(&self, at: usize) -> bool {
        let text = self.text;
        let Some(close) = text.name_list(at + 1) else { return false };
        let behind_alias = at > 0 && (text.is(at - 1, "as") || text.symbol(at - 1, b')'));
        behind_alias || (text.is(close + 1, "as") && text.symbol(close + 2, b'('))
    }

    /// A name that is not called: it may be a view, or a schema that describes the server.
    fn table_or_schema(&mut self, at: usize, lower: &[u8]) {
        if !self.catalogue.views.is_empty() && self.catalogue.views.contains(lower) {
            self.found.needs |= Needs::STOPPED_BY_READ_ONLY;
        }
        // `s.nextval` of sql_mode ORACLE.
        let member = at > 0 && self.text.symbol(at - 1, b'.');
        if member && matches!(lower, b"nextval" | b"currval") && self.text.mode.flavour == Flavour::Mariadb {
            self.object(at, "may move a sequence");
        }
        if !self.text.symbol(at + 1, b'.') {
            return;
        }
        match lower {
            b"information_schema" => {
                let mut buffer = [0; MAX_WORD_BYTES];
                let table = self.text.name(at + 2).unwrap_or_default();
                let table = lower_case(&table, &mut buffer);
                if !keywords::describes_data(table) {
                    self.server_table(at);
                }
            }
            b"performance_schema" | b"sys" | b"mysql" => self.server_table(at),
            _ => {}
        }
    }

    fn server_table(&mut self, at: usize) {
        let question = Special {
            kind: Kind::ServerQuestion,
            target: Target::Primary,
            effects: Effects::empty(),
            needs: Needs::PROCESS_IDS,
            why: "reads tables that describe the server",
        };
        self.special(at, question);
    }
}

/// The lower-case name of a system variable, without its scope.
pub(super) fn system_variable(text: &Text<'_>, at: usize) -> Vec<u8> {
    let bytes = text.bytes(at);
    let mut name = bytes.strip_prefix(b"@@").unwrap_or(bytes).to_ascii_lowercase();
    name.retain(|byte| *byte != b'`');
    let scopes: [&[u8]; 5] = [b"session", b"local", b"global", b"persist", b"persist_only"];
    if scopes.contains(&name.as_slice()) && text.symbol(at + 1, b'.') {
        return text.name(at + 2).map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    }
    for scope in scopes {
        if let Some(rest) = name.strip_prefix(scope).and_then(|rest| rest.strip_prefix(b".")) {
            return rest.to_vec();
        }
    }
    name
}

/// The name in lower case; empty where it is longer than any name that is looked for.
pub(super) fn lower_case<'b>(bytes: &[u8], buffer: &'b mut [u8; MAX_WORD_BYTES]) -> &'b [u8] {
    let Some(lower) = buffer.get_mut(..bytes.len()) else { return &[] };
    lower.copy_from_slice(bytes);
    lower.make_ascii_lowercase();
    lower
}
