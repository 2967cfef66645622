//! JSON with the places of keys and values kept.
//!
//! Finds where each value starts and ends; what is between is read by serde_json.

use serde_json::Number;

use super::tree::{Entry, Node, Parsed, Spot, SyntaxError, Value};

/// Values nested deeper are refused, long before the stack is at an end.
const MAX_DEPTH: usize = 64;

/// Parses a document whose outermost value is an object.
pub(crate) fn parse(text: &str) -> Parsed {
    let mut parser = Parser { text, at: 0, depth: 0, duplicates: Vec::new() };
    let outcome = parser.document();
    let mut errors = parser.duplicates;
    let entries = outcome.unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    Parsed { entries, errors }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    duplicates: Vec<SyntaxError>,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Vec<Entry>, SyntaxError> {
        self.skip_space();
        if self.peek() != Some(b'{') {
            return Err(self.error("expected an object"));
        }
        let entries = self.object()?;
        self.skip_space();
        if self.at < self.text.len() { Err(self.error("expected the end of the file")) } else { Ok(entries) }
    }

    fn node(&mut self) -> Result<Node, SyntaxError> {
        self.skip_space();
        let spot = Spot(self.at);
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let value = match self.peek() {
            Some(b'{') => Value::Table(self.object()?),
            Some(b'[') => Value::List(self.list()?),
            Some(b'"') => Value::Text(self.string()?),
            _ => self.word()?,
        };
        self.depth -= 1;
        Ok(Node { spot, value })
    }

    fn object(&mut self) -> Result<Vec<Entry>, SyntaxError> {
        let mut entries: Vec<Entry> = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Ok(entries);
        }
        loop {
            self.skip_space();
            let spot = Spot(self.at);
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in quotes"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err(self.error("expected \":\""));
            }
            let node = self.node()?;
            if entries.iter().any(|entry| entry.key == key) {
                let message = "given more than once".to_owned();
                self.duplicates.push(SyntaxError { spot, duplicate: Some(key), message, unclosed: false });
            } else {
                entries.push(Entry { key, spot, node });
            }
            self.skip_space();
            if self.take(b'}') {
                return Ok(entries);
            }
            if !self.take(b',') {
                return Err(self.error("expected \",\" or \"}\""));
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Node>, SyntaxError> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Ok(items);
        }
        loop {
            items.push(self.node()?);
            self.skip_space();
            if self.take(b']') {
                return Ok(items);
            }
            if !self.take(b',') {
                return Err(self.error("expected \",\" or \"]\""));
            }
        }
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        while let Some(&byte) = bytes.get(end) {
            match byte {
                b'"' => {
                    self.at = end + 1;
                    return serde_json::from_str(&self.text[start..=end]).map_err(|_invalid| SyntaxError {
                        spot: Spot(start),
                        duplicate: None,
                        message: "invalid escape or control character in a text".to_owned(),
                        unclosed: false,
                    });
                }
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        Err(self.error("text without an end"))
    }

    fn word(&mut self) -> Result<Value, SyntaxError> {
        let rest = &self.text[self.at..];
        let len =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        let word = &rest[..len];
        let value = match word {
            "" => return Err(self.error("expected a value")),
            "null" => Value::Null,
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            number => match serde_json::from_str::<Number>(number) {
                Ok(parsed) => {
                    parsed.as_i64().map_or_else(|| Value::Number(number.to_owned()), Value::Integer)
                }
                Err(_invalid) => return Err(self.error("expected a value")),
            },
        };
        self.at += len;
        Ok(value)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { spot: Spot(self.at), duplicate: None, message: message.to_owned(), unclosed: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(value: &Value) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Text(text) => text.clone().into(),
            Value::Integer(number) => (*number).into(),
            Value::Number(text) => serde_json::from_str(text).unwrap(),
            Value::Boolean(value) => (*value).into(),
            Value::Date(_) => unreachable!("JSON has no dates"),
            Value::List(items) => items.iter().map(|item| plain(&item.value)).collect(),
            Value::Table(entries) => object(entries),
        }
    }

    fn object(entries: &[Entry]) -> serde_json::Value {
        entries.iter().map(|entry| (entry.key.clone(), plain(&entry.node.value))).collect()
    }

    #[test]
    fn errors_have_places() {
        let check = |text: &str, offset: usize, message: &str| {
            let parsed = parse(text);
            let found: Vec<_> = parsed.errors.iter().map(|e| (e.spot.0, e.message.as_str())).collect();
            assert_eq!(found, [(offset, message)], "{text}");
        };
        check("", 0, "expected an object");
        check("[]", 0, "expected an object");
        check("{", 1, "expected a key in quotes");
        check("{\"a\" 1}", 5, "expected \":\"");
        check("{\"a\": 1 \"b\": 2}", 8, "expected \",\" or \"}\"");
        check("{\"a\": [1 2]}", 9, "expected \",\" or \"]\"");
        check("{\"a\": 1,}", 8, "expected a key in quotes");
        check("{\"a\": tru}", 6, "expected a value");
        check("{\"a\": }", 6, "expected a value");
        check("{\"a\": \"x}", 6, "text without an end");
        check("{\"a\": \"\\q\"}", 6, "invalid escape or control character in a text");
        check("{} x", 3, "expected the end of the file");
        check("{\"a\": 1, \"a\": 2}", 9, "given more than once");
        check(&format!("{{\"a\": {}", "[".repeat(100)), 6 + 64, "nested too deeply");
    }

    #[test]
    fn values_have_places() {
        let parsed = parse("{\"a\":\n  [1, \"\\u00e9\"], \"b\": null}");
        let Value::List(items) = &parsed.entries[0].node.value else { panic!("no list") };
        assert_eq!((parsed.entries[0].spot.0, items[1].spot.0, parsed.entries[1].spot.0), (1, 12, 23));
        assert_eq!(items[1].value, Value::Text("é".to_owned()));
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_what_serde_json_reads(value in any_json(), pretty in any::<bool>()) {
            let document = serde_json::json!({ "v": value });
            let text =
                if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
            let text = text.unwrap();
            let parsed = parse(&text);
            prop_assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
            prop_assert_eq!(object(&parsed.entries), serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }

        #[test]
        fn refuses_what_serde_json_refuses(text in r#"[{}\[\]",:0-9a-e\\ \-.ntrufalse]{0,40}"#) {
            let parsed = parse(&text);
            let reference = serde_json::from_str::<serde_json::Value>(&text);
            let sound = parsed.errors.iter().all(|error| error.duplicate.is_some());
            prop_assert_eq!(sound, reference.is_ok_and(|value| value.is_object()));
        }
    }
}
