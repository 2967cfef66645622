//! `[[routing.rule]]`: exceptions by digest, user, schema and listener.

use pointsman_config::{ListenerName, Rule, RuleTarget};

use super::Request;

/// The configured rules, with the digests of their statements.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Compiled>,
}

#[derive(Clone, Debug)]
struct Compiled {
    name: String,
    target: RuleTarget,
    digest: Option<u128>,
    user: Option<Vec<u8>>,
    schema: Option<Vec<u8>>,
    listener: Option<ListenerName>,
}

impl Rules {
    /// `digest` gives the digest of a rule's statement, as the classifier gives it for a client's.
    pub fn new(rules: &[Rule], mut digest: impl FnMut(&str) -> u128) -> Self {
        let compile = |rule: &Rule| Compiled {
            name: rule.name.clone(),
            target: rule.target,
            digest: rule.digest.as_deref().map(&mut digest),
            user: rule.user.clone().map(String::into_bytes),
            schema: rule.schema.clone().map(String::into_bytes),
            listener: rule.listener,
        };
        Self { rules: rules.iter().map(compile).collect() }
    }

    /// The target and the name of the first rule whose conditions all hold.
    pub(super) fn first(&self, request: &Request<'_>) -> Option<(RuleTarget, &str)> {
        let rule = self.rules.iter().find(|rule| rule.matches(request))?;
        Some((rule.target, &rule.name))
    }
}

impl Compiled {
    fn matches(&self, request: &Request<'_>) -> bool {
        self.digest.is_none_or(|digest| digest == request.digest)
            && self.user.as_deref().is_none_or(|user| user == request.user)
            && self.schema.as_deref().is_none_or(|schema| request.session.schema() == Some(schema))
            && self.listener.is_none_or(|listener| listener == request.listener())
    }
}
