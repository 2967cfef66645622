//! Which names are stored functions, and which views reach one: what the text of a statement cannot tell.

use std::collections::BTreeSet;
use std::time::Duration;

use pointsman_router::classify::Catalogue;

use super::connection::{ConnectionError, ServiceConnection};

/// Answers with one row per stored function, and then one per view. A definition that the service account may not
/// see is NULL or empty.
const SQL: &str = "\
SELECT LOWER(ROUTINE_NAME) FROM information_schema.ROUTINES \
WHERE ROUTINE_TYPE = 'FUNCTION' AND ROUTINE_SCHEMA NOT IN ('mysql', 'sys'); \
SELECT LOWER(TABLE_NAME), LOWER(VIEW_DEFINITION) FROM information_schema.VIEWS \
WHERE TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";

/// Reads the catalogue; its version is left for the caller to set.
///
/// # Errors
///
/// As [`ServiceConnection::results`].
pub(super) async fn read(
    connection: &mut ServiceConnection,
    limit: Duration,
) -> Result<Catalogue, ConnectionError> {
    let mut answers = connection.results(SQL, limit).await?.into_iter();
    let functions = answers.next().unwrap_or_default();
    let views = answers.next().unwrap_or_default();
    let views: Vec<_> = views
        .iter()
        .filter_map(|row| Some(View { name: row.at(0)?, definition: row.at(1).unwrap_or_default() }))
        .collect();
    Ok(Catalogue {
        version: 0,
        functions: functions.iter().filter_map(|row| row.at(0)).map(bytes).collect(),
        views: reaching_a_function(&views).into_iter().map(|name| bytes(name.to_owned())).collect(),
    })
}

fn bytes(text: String) -> Box<[u8]> {
    text.into_bytes().into_boxed_slice()
}

/// A view and its definition as the server prints it, in lower case.
#[derive(Debug)]
struct View {
    name: String,
    definition: String,
}

/// The views that call a stored function, directly or through other views.
fn reaching_a_function(views: &[View]) -> BTreeSet<&str> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut news: Vec<&str> = views
        .iter()
        .filter(|view| calls_a_function(&view.definition))
        .map(|view| view.name.as_str())
        .collect();
    while let Some(name) = news.pop() {
        if found.insert(name) {
            let quoted = format!("`{name}`");
            news.extend(
                views.iter().filter(|view| view.definition.contains(&quoted)).map(|view| view.name.as_str()),
            );
        }
    }
    found
}

/// Servers print a stored function with its name in backticks and a parenthesis right behind, and no built-in one.
fn calls_a_function(definition: &str) -> bool {
    definition.is_empty()
        || definition.contains("`(")
        || WRITING_CALLS.iter().any(|call| definition.contains(call))
}

/// Built-in functions that change something beyond the answer.
const WRITING_CALLS: [&str; 6] =
    ["nextval(", "next value for", "setval(", "get_lock(", "release_lock(", "release_all_locks("];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_views_that_reach_a_function() {
        let check = |views: &[(&str, &str)], expected: &[&str]| {
            let views: Vec<_> = views
                .iter()
                .map(|(name, definition)| View { name: (*name).into(), definition: (*definition).into() })
                .collect();
            assert_eq!(reaching_a_function(&views).into_iter().collect::<Vec<_>>(), expected);
        };
        let plain = ("plain", "select `app`.`t`.`a` as `a`,max(`app`.`t`.`b`) as `m` from `app`.`t`");
        let calls = ("calls", "select `app`.`f`(`app`.`t`.`a`) as `x` from `app`.`t`");
        let reads_calls = ("reads_calls", "select `calls`.`x` as `x` from `app`.`calls`");
        let reads_again = ("again", "select 1 as `1` from (`app`.`reads_calls` join `app`.`plain`)");
        check(&[plain], &[]);
        check(&[plain, calls], &["calls"]);
        check(&[reads_again, plain, reads_calls, calls], &["again", "calls", "reads_calls"]);
        check(&[("hidden", ""), ("over", "select 1 from `app`.`hidden`")], &["hidden", "over"]);
        check(&[("seq", "select nextval(`app`.`s`) as `n`")], &["seq"]);
        // Two that read each other end the search too.
        check(&[("a", "`b` `f`("), ("b", "`a`")], &["a", "b"]);
    }
}
