//! Who becomes the primary: the server that holds everything, if it may.

use crate::gtid::GtidSet;
use crate::topology::ServerId;

/// A server whose receiving has been stopped, as the election sees it.
#[derive(Clone, Debug)]
pub(super) struct Entrant {
    pub(super) id: ServerId,
    /// Everything that it has.
    pub(super) holds: GtidSet,
    /// All of that is executed.
    pub(super) applied: bool,
    /// Its binary log has all of that, too: what filters leave out others would never get.
    pub(super) can_pass_on: bool,
    /// Why it may not become the primary.
    pub(super) ineligible: Option<String>,
    /// Smaller is better.
    pub(super) rank: u32,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Candidate(ServerId),
    /// The best that may is not the best that there is: it must get the rest from `source` first.
    CatchUp {
        candidate: ServerId,
        source: ServerId,
    },
    None {
        reason: String,
    },
}

/// Chooses among `entrants`; `wish` is who an operator asked for.
pub(super) fn elect(
    entrants: &[Entrant],
    wish: Option<ServerId>,
    name: &dyn Fn(ServerId) -> String,
) -> Choice {
    let Some(maximal) = maximal(entrants) else { return diverged(entrants, name) };
    let may = |entrant: &&&Entrant| match wish {
        Some(wish) => entrant.id == wish,
        None => entrant.ineligible.is_none(),
    };
    let best = maximal.iter().filter(may).min_by_key(|entrant| (!entrant.applied, entrant.rank, entrant.id));
    if let Some(best) = best {
        return Choice::Candidate(best.id);
    }
    let others: Vec<_> = entrants.iter().collect();
    let next = others.iter().filter(may).min_by_key(|entrant| (entrant.rank, entrant.id));
    let can_pass_on = |entrant: &&&Entrant| entrant.can_pass_on;
    match (next, maximal.iter().filter(can_pass_on).find(|entrant| entrant.applied)) {
        (Some(next), Some(source)) => Choice::CatchUp { candidate: next.id, source: source.id },
        (Some(next), None) if !maximal.iter().any(|entrant| entrant.can_pass_on) => {
            let filtered: Vec<_> = maximal.iter().map(|entrant| name(entrant.id)).collect();
            let (filtered, next) = (filtered.join(", "), name(next.id));
            let reason =
                format!("{filtered} holds most and has replication filters: {next} cannot get it from there");
            Choice::None { reason }
        }
        (Some(_), None) => Choice::None { reason: "the server that holds most is still applying".into() },
        (None, _) => {
            let why = |entrant: &Entrant| {
                let reason = entrant.ineligible.as_deref().unwrap_or("was not asked for");
                format!("{}: {reason}", name(entrant.id))
            };
            let reasons: Vec<_> = entrants.iter().map(why).collect();
            let reasons =
                if reasons.is_empty() { "no replica was reached".into() } else { reasons.join("; ") };
            Choice::None { reason: format!("no server may be promoted: {reasons}") }
        }
    }
}

/// The entrants that hold everything that any of them holds; none if they have diverged.
pub(super) fn maximal(entrants: &[Entrant]) -> Option<Vec<&Entrant>> {
    let maximal: Vec<_> =
        entrants.iter().filter(|one| entrants.iter().all(|other| one.holds.contains(&other.holds))).collect();
    // The same MariaDB sequence number from two servers: each seems to contain the other.
    let first = maximal.first()?;
    maximal.iter().all(|other| other.holds == first.holds).then_some(maximal)
}

fn diverged(entrants: &[Entrant], name: &dyn Fn(ServerId) -> String) -> Choice {
    let positions: Vec<_> = entrants.iter().map(|e| format!("{} at {}", name(e.id), e.holds)).collect();
    let reason = if positions.is_empty() {
        "no replica was reached".into()
    } else {
        format!("the servers hold different transactions: {}", positions.join(", "))
    };
    Choice::None { reason }
}
