//! Responses.

use pointsman_protocol::codec::Malformed;
use pointsman_protocol::response::{Grammar, MAX_END_PACKET_BYTES, ResponseWalker, Stop};

use crate::option;

/// A response ends at the same byte with the same packets however it is cut, and little of it is held back.
pub fn check(data: &[u8]) {
    let (chosen, rest) = option(data);
    let (piece, bytes) = option(rest);
    let grammar = match chosen & 7 {
        0 => Grammar::Query,
        1 => Grammar::Prepare,
        2 => Grammar::Fetch,
        3 => Grammar::FieldList,
        4 => Grammar::Statistics,
        5 => Grammar::Ok,
        6 => Grammar::SetOption,
        _ => Grammar::None,
    };
    let walker = ResponseWalker::new(grammar, chosen & 8 != 0, chosen & 16 != 0);
    let whole = walk(walker, bytes, bytes.len().max(1));
    let pieces = walk(walker, bytes, usize::from(piece).max(1));
    assert_eq!(whole, pieces);
}

/// Everything that the walker stopped for, and how many bytes were used up.
type Walked = Result<(Vec<(usize, Stop)>, usize, u64), Malformed>;

fn walk(mut walker: ResponseWalker, bytes: &[u8], piece: usize) -> Walked {
    let (mut stops, mut used, mut shown) = (Vec::new(), 0, 0);
    loop {
        let (ahead, stop) = walker.walk(&bytes[used..shown])?;
        used += ahead;
        assert!(used <= shown && shown - used <= MAX_END_PACKET_BYTES.max(piece));
        let (len, last) = match stop {
            Stop::NeedMore if shown == bytes.len() => return Ok((stops, used, walker.rows())),
            Stop::NeedMore => {
                shown = (shown + piece).min(bytes.len());
                continue;
            }
            Stop::Done => (0, true),
            Stop::End { len, last, .. } => (len, last),
            Stop::PrepareOk { len } | Stop::LocalInfile { len } => (len, false),
        };
        stops.push((used, stop));
        used += len;
        assert!(used <= shown);
        if last {
            return Ok((stops, used, walker.rows()));
        }
    }
}
