//! What a statement does, as far as its text proves it.
//!
//! The rule behind all of it: a statement goes to a replica only if it is proven to be a pure read; doubt means
//! primary. Nothing here knows servers, health or what the session did before, except for what [`Mode`] carries.
//!
//! A text passes through `lexer` -> `scan` (tokens) -> `digest` -> `cache`; on a miss through `statement`, which asks
//! the reader of its first words, and for queries through `survey` (the scanner's proof) and `opinion` (the parser's).

mod administration;
mod byte_class;
mod cache;
mod classifier;
mod comment;
mod define;
mod digest;
mod directive;
mod draft;
mod explain;
mod find;
mod functions;
mod keywords;
mod lexer;
mod mode;
mod opinion;
mod read;
mod scan;
mod session_statement;
mod set;
mod set_value;
mod show;
mod special;
mod statement;
mod survey;
mod text;
mod token;
mod transaction;

pub use classifier::{Classified, Classifier};
pub use digest::Digest;
pub use explain::{ExplainedToken, Explanation, explain, normal_form};
pub use find::{Call, calls, variables};
pub use mode::{Catalogue, Mode};
