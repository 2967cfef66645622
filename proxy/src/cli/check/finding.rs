//! What a look at the servers brings up.

use serde_json::{Value, json};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Good to know.
    Note,
    /// Works, with a risk that is named.
    Warning,
    /// Does not work.
    Error,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) server: String,
    pub(super) level: Level,
    /// The check that found it, in one word.
    pub(super) check: &'static str,
    pub(super) message: String,
    pub(super) fix: Fix,
}

/// What to do about a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fix {
    /// Statements to run on the server.
    pub(super) sql: Vec<String>,
    /// `--fix` may run them: they lose nothing and can be taken back.
    pub(super) safe: bool,
    /// What SQL cannot do: lines of the server's option file, or an action.
    pub(super) advice: String,
}

impl Fix {
    pub(super) fn advice(text: impl Into<String>) -> Self {
        Self { advice: text.into(), ..Self::default() }
    }

    pub(super) fn sql(statement: impl Into<String>) -> Self {
        Self { sql: vec![statement.into()], ..Self::default() }
    }

    pub(super) fn safe(mut self) -> Self {
        self.safe = true;
        self
    }

    pub(super) fn and(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl Finding {
    pub(super) fn new(server: &str, level: Level, check: &'static str, message: impl Into<String>) -> Self {
        Self { server: server.to_owned(), level, check, message: message.into(), fix: Fix::default() }
    }

    pub(super) fn with(mut self, fix: Fix) -> Self {
        self.fix = fix;
        self
    }

    pub(super) fn value(&self) -> Value {
        json!({
            "server": self.server,
            "level": self.level.name(),
            "check": self.check,
            "message": self.message,
            "fix": { "sql": self.fix.sql, "safe": self.fix.safe, "advice": self.fix.advice },
        })
    }

    /// Whether it says the same of another server.
    fn is_like(&self, other: &Self) -> bool {
        (self.level, self.check, &self.message, &self.fix)
            == (other.level, other.check, &other.message, &other.fix)
    }
}

/// The findings for people, with what to do below each; what holds for several servers is said once.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut groups: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in findings {
        match groups.iter_mut().find(|(first, _)| first.is_like(finding)) {
            Some((_, servers)) => servers.push(&finding.server),
            None => groups.push((finding, vec![&finding.server])),
        }
    }
    let mut text = String::new();
    for (finding, servers) in groups {
        let level = finding.level.name();
        text.push_str(&format!(
            "{level:7}  {}: {}: {}\n",
            servers.join(", "),
            finding.check,
            finding.message
        ));
        let hand = if finding.fix.safe { "--fix runs" } else { "run" };
        for statement in &finding.fix.sql {
            text.push_str(&format!("{INDENT}{hand}: {statement};\n"));
        }
        if !finding.fix.advice.is_empty() {
            text.push_str(&format!("{INDENT}{}\n", finding.fix.advice));
        }
    }
    text
}

const INDENT: &str = "         ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_once_what_holds_for_several() {
        let one = |server: &str, message: &str| {
            Finding::new(server, Level::Warning, "settings", message)
                .with(Fix::sql("SET x").safe().and("keep it"))
        };
        let findings = [one("a", "x is 0"), one("b", "x is 0"), one("a", "y is 0")];
        let expected = "\
warning  a, b: settings: x is 0
         --fix runs: SET x;
         keep it
warning  a: settings: y is 0
         --fix runs: SET x;
         keep it
";
        assert_eq!(text(&findings), expected);
    }
}
