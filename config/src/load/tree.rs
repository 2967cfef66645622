//! A document whose values know where they stand, whatever language it was written in.

/// Where a key or value stands: a byte offset of a file, or the number of a variable or flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot(pub(crate) usize);

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// JSON's null: as if the key were absent.
    Null,
    Text(String),
    Integer(i64),
    /// A number that is no integer of 64 bits, as it was written.
    Number(String),
    Boolean(bool),
    /// TOML's dates, which no option takes.
    Date(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table and its value, in the order of the document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) spot: Spot,
    pub(crate) node: Node,
}

impl Value {
    /// The value for a message: what it is, and itself where it is short.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Text(text) => format!("the text \"{text}\""),
            Self::Integer(number) => format!("the number {number}"),
            Self::Number(number) => format!("the number {number}"),
            Self::Boolean(value) => format!("{value}"),
            Self::Date(date) => format!("the date {date}"),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }

    /// The kind of value alone, where the value may be secret.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "text",
            Self::Integer(_) | Self::Number(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// What a parser found, and what it could not understand.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) errors: Vec<SyntaxError>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) spot: Spot,
    /// The path of the key, where the text is sound but says something twice.
    pub(crate) duplicate: Option<String>,
    pub(crate) message: String,
    /// A bracket is never closed: all that follows is misunderstood.
    pub(crate) unclosed: bool,
}
