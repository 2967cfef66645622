use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "aaaaaaaa-0000-0000-0000-00000000000b";

fn mariadb(text: &str) -> GtidSet {
    GtidSet::parse(Flavour::Mariadb, text).unwrap()
}

fn mysql(text: &str) -> GtidSet {
    GtidSet::parse(Flavour::Mysql, &text.replace('A', A).replace('B', B)).unwrap()
}

fn short(set: &GtidSet) -> String {
    set.to_string().replace(A, "A").replace(B, "B")
}

/// Every way to write a set, and what it is in the server's own syntax.
#[test]
fn text_is_read_as_servers_write_it() {
    let check = |flavour, text: &str, expected: &str| {
        let text = text.replace('A', A).replace('B', B);
        let set = GtidSet::parse(flavour, &text).map_err(|error| error.to_string());
        assert_eq!(set.as_ref().map(short), Ok(expected.to_owned()), "{text:?}");
        assert_eq!(set.is_ok_and(|set| set.is_empty()), expected.is_empty(), "{text:?}");
    };
    let maria = |text, expected| check(Flavour::Mariadb, text, expected);
    maria("", "");
    maria(" \n", "");
    maria("0-1-5", "0-1-5");
    maria(" 0-1-5 ,\n7-2-33 ", "0-1-5,7-2-33");
    maria("7-2-33,0-1-5", "0-1-5,7-2-33");
    maria("0-1-5,", "0-1-5");
    maria("0-1-5,0-2-9,0-1-7", "0-2-9");
    maria("0-1-5,0-2-5", "0-1-5");
    maria("4294967295-4294967295-18446744073709551615", "4294967295-4294967295-18446744073709551615");

    let my = |text, expected| check(Flavour::Mysql, text, expected);
    my("", "");
    my("A:1", "A:1");
    my("A:1-5", "A:1-5");
    my("A:1-5:7:9-10", "A:1-5:7:9-10");
    my("A:9-10:7:1-5", "A:1-5:7:9-10");
    my("A:1-5:6", "A:1-6");
    my("A:1-5:3-9", "A:1-9");
    my("A:1:3:2", "A:1-3");
    my("A:5-3", "");
    my("A:5-3:8", "A:8");
    my("A:1-5,\nB:1-3", "A:1-5,B:1-3");
    my("B:1-3,A:1-5", "A:1-5,B:1-3");
    my(" A : 1 - 5 : 7 ,, B:2 ", "A:1-5:7,B:2");
    my("A:1,A:3,A:2", "A:1-3");
    my("A:tag:1-3", "A:tag:1-3");
    my("A:1-5:tag:1-3:9:other:2", "A:1-5:other:2:tag:1-3:9");
    my("A:Tag_1:1,A:tag_1:2", "A:tag_1:1-2");
    my("A:9223372036854775807", "A:9223372036854775807");
}

#[test]
fn faulty_text_is_named() {
    let check = |flavour, text: &str, expected: &str| {
        let text = text.replace('A', A);
        let error = GtidSet::parse(flavour, &text).unwrap_err();
        assert_eq!(error.to_string().replace(A, "A"), expected, "{text:?}");
    };
    let maria = |text, fragment: &str| {
        check(Flavour::Mariadb, text, &format!("expected domain-server-sequence, got \"{fragment}\""));
    };
    maria("x", "x");
    maria("0-1", "0-1");
    maria("0-1-", "0-1-");
    maria("0-1-5-6", "0-1-5-6");
    maria("0-1-5,0-1-x", "0-1-x");
    maria("0-1-+5", "0-1-+5");
    maria("-1-1-1", "-1-1-1");
    maria("4294967296-1-1", "4294967296-1-1");
    maria("0-1-18446744073709551616", "0-1-18446744073709551616");
    maria("A:1", "A:1");
    maria("\u{e9}", "\\xc3\\xa9");

    let my = |text, fragment: &str| {
        check(Flavour::Mysql, text, &format!("expected uuid[:tag]:interval, got \"{fragment}\""));
    };
    my("A", "A");
    my("A:", "A:");
    my("A:0", "A:0");
    my("A:0-5", "A:0-5");
    my("A:x", "A:x");
    my("A:1:tag", "A:1:tag");
    my("A:1-", "A:1-");
    my("A:-1", "A:-1");
    my("A:1-2-3", "A:1-2-3");
    my("A:9223372036854775808", "A:9223372036854775808");
    my("A:1-99999999999999999999", "A:1-99999999999999999999");
    my("A:a-b:1", "A:a-b:1");
    my("3e11fa47:1", "3e11fa47:1");
    my("0-1-5", "0-1-5");
    my("3e11fa47x71ca-11e1-9e33-c80aa9429562:1", "3e11fa47x71ca-11e1-9e33-c80aa9429562:1");
}

#[test]
fn uuids_are_read_with_and_without_dashes() {
    for uuid in [A.replace('-', ""), A.to_uppercase()] {
        let set = GtidSet::parse(Flavour::Mysql, &format!("{uuid}:4"));
        assert_eq!(set, Ok(mysql("A:4")));
    }
}

#[test]
fn positions_and_sets_have_an_order() {
    let check = |left: &GtidSet, right: &GtidSet, contains: bool, left_over: &str, union: &str| {
        assert_eq!(left.contains(right), contains, "{left} contains {right}");
        assert_eq!(short(&left.subtract(right)), left_over, "{left} without {right}");
        let mut merged = left.clone();
        merged.merge(right);
        assert_eq!(short(&merged), union, "{left} and {right}");
    };
    let maria = |left, right, contains, left_over, union| {
        check(&mariadb(left), &mariadb(right), contains, left_over, union);
    };
    maria("", "", true, "", "");
    maria("0-1-5", "", true, "0-1-5", "0-1-5");
    maria("", "0-1-5", false, "", "0-1-5");
    maria("0-1-5", "0-1-5", true, "", "0-1-5");
    maria("0-1-5", "0-2-5", true, "", "0-1-5");
    maria("0-1-6", "0-2-5", true, "0-1-6", "0-1-6");
    maria("0-1-4", "0-2-5", false, "", "0-2-5");
    maria("0-1-5", "1-1-1", false, "0-1-5", "0-1-5,1-1-1");
    maria("0-1-5,1-1-9", "1-1-1", true, "0-1-5,1-1-9", "0-1-5,1-1-9");
    maria("0-1-5,1-1-9,2-1-1", "0-1-5,2-1-2", false, "1-1-9", "0-1-5,1-1-9,2-1-2");

    let my = |left, right, contains, left_over, union| {
        check(&mysql(left), &mysql(right), contains, left_over, union);
    };
    my("", "A:1", false, "", "A:1");
    my("A:1-10", "", true, "A:1-10", "A:1-10");
    my("A:1-10", "A:3-5", true, "A:1-2:6-10", "A:1-10");
    my("A:1-10", "A:3-5:7", true, "A:1-2:6:8-10", "A:1-10");
    my("A:1-10", "A:1-10", true, "", "A:1-10");
    my("A:1-10", "A:5-15", false, "A:1-4", "A:1-15");
    my("A:1-3:7-9", "A:3-7", false, "A:1-2:8-9", "A:1-9");
    my("A:1-3:7-9", "A:4-6", false, "A:1-3:7-9", "A:1-9");
    my("A:1-3", "B:1", false, "A:1-3", "A:1-3,B:1");
    my("A:1-3", "A:tag:1", false, "A:1-3", "A:1-3:tag:1");
    my("A:1-3:tag:1-9", "A:tag:2", true, "A:1-3:tag:1:3-9", "A:1-3:tag:1-9");
    my(
        "A:9223372036854775807",
        "A:9223372036854775806",
        false,
        "A:9223372036854775807",
        "A:9223372036854775806-9223372036854775807",
    );
}

#[test]
fn flavours_do_not_mix() {
    let (position, set) = (mariadb("0-1-5"), mysql("A:1"));
    for (left, right) in [(&position, &set), (&set, &position)] {
        assert!(!left.contains(right));
        assert_eq!(left.subtract(right), *left);
        let mut merged = left.clone();
        merged.merge(right);
        assert_eq!(merged, *left);
    }
    let mut merged = position.clone();
    assert_eq!(merged.merge_text(Flavour::Mysql, format!("{A}:1").as_bytes()), Ok(()));
    assert_eq!(merged, position);
}

/// What a MySQL set means: transaction numbers by source.
type Numbers = BTreeMap<(usize, usize), BTreeSet<u64>>;

const UUIDS: [&str; 2] = [A, B];
const TAGS: [&str; 3] = ["", "a", "b_2"];

fn write(elements: &[(usize, usize, u64, u64)]) -> String {
    let element = |&(uuid, tag, first, more): &(usize, usize, u64, u64)| {
        let tag = if TAGS[tag].is_empty() { String::new() } else { format!(":{}", TAGS[tag]) };
        format!("{}{tag}:{first}-{}", UUIDS[uuid], first + more)
    };
    elements.iter().map(element).collect::<Vec<_>>().join(",\n")
}

fn numbers(elements: &[(usize, usize, u64, u64)]) -> Numbers {
    let mut numbers = Numbers::new();
    for &(uuid, tag, first, more) in elements {
        numbers.entry((uuid, tag)).or_default().extend(first..=first + more);
    }
    numbers
}

/// The canonical text of what is meant.
fn canonical(numbers: &Numbers) -> String {
    let mut elements = Vec::new();
    for (&(uuid, tag), set) in numbers {
        elements.extend(set.iter().map(|&number| (uuid, tag, number, 0)));
    }
    GtidSet::parse(Flavour::Mysql, &write(&elements)).unwrap().to_string()
}

fn elements() -> impl Strategy<Value = Vec<(usize, usize, u64, u64)>> {
    proptest::collection::vec((0..2_usize, 0..3_usize, 1..40_u64, 0..8_u64), 0..12)
}

proptest! {
    #[test]
    fn sets_are_sets_of_numbers(left in elements(), right in elements()) {
        let (a, b) = (mysql(&write(&left)), mysql(&write(&right)));
        let (na, nb) = (numbers(&left), numbers(&right));
        prop_assert_eq!(a.to_string(), canonical(&na));
        prop_assert_eq!(&mysql(&a.to_string()), &a);

        let mut union = na.clone();
        nb.iter().for_each(|(source, set)| union.entry(*source).or_default().extend(set));
        let mut merged = a.clone();
        merged.merge(&b);
        prop_assert_eq!(merged.to_string(), canonical(&union));
        prop_assert!(merged.contains(&a) && merged.contains(&b));

        let inside = nb.iter().all(|(source, set)| na.get(source).is_some_and(|mine| set.is_subset(mine)));
        prop_assert_eq!(a.contains(&b), inside);

        let mut rest = na;
        for (source, set) in &mut rest {
            set.retain(|number| !nb.get(source).is_some_and(|theirs| theirs.contains(number)));
        }
        rest.retain(|_, set| !set.is_empty());
        prop_assert_eq!(a.subtract(&b).to_string(), canonical(&rest));
        prop_assert_eq!(a.subtract(&b).is_empty(), rest.is_empty());
    }

    /// One at a time, as from OK packets, is the same as all at once.
    #[test]
    fn gtids_add_up_in_any_order(mut numbers in proptest::collection::vec(1..60_u64, 1..40)) {
        let mut grown = GtidSet::Empty;
        for number in &numbers {
            grown.merge_text(Flavour::Mysql, format!("{A}:{number}").as_bytes()).unwrap();
        }
        numbers.sort_unstable();
        let list = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(":");
        prop_assert_eq!(grown, mysql(&format!("{A}:{list}")));
    }

    #[test]
    fn positions_are_the_highest_of_each_domain(
        left in proptest::collection::vec((0..4_u32, 1..3_u32, 1..50_u64), 0..8),
        right in proptest::collection::vec((0..4_u32, 1..3_u32, 1..50_u64), 0..8),
    ) {
        let read = |list: &[(u32, u32, u64)]| {
            mariadb(&list.iter().map(|(d, s, n)| format!("{d}-{s}-{n}")).collect::<Vec<_>>().join(","))
        };
        let highest = |list: &[(u32, u32, u64)]| {
            let mut highest = BTreeMap::new();
            for &(domain, _, sequence) in list {
                let known = highest.entry(domain).or_insert(sequence);
                *known = sequence.max(*known);
            }
            highest
        };
        let (a, b) = (read(&left), read(&right));
        let (ha, hb) = (highest(&left), highest(&right));
        let inside = hb.iter().all(|(domain, sequence)| ha.get(domain).is_some_and(|mine| mine >= sequence));
        prop_assert_eq!(a.contains(&b), inside);
        let mut merged = a.clone();
        merged.merge(&b);
        prop_assert!(merged.contains(&a) && merged.contains(&b));
        prop_assert_eq!(a.contains(&merged), inside);
        // Together with what it lacks, one has all of the other.
        let mut completed = b.clone();
        completed.merge(&a.subtract(&b));
        prop_assert!(completed.contains(&a));
        prop_assert_eq!(a.subtract(&b).is_empty(), b.contains(&a));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            let mut set = GtidSet::Empty;
            if set.merge_text(flavour, &bytes).is_ok() {
                let again = GtidSet::parse(flavour, &set.to_string());
                prop_assert_eq!(again, Ok(set));
            }
        }
    }

    #[test]
    fn almost_sets_are_read_or_refused(text in "[0-9a-f:,\\- ]{0,60}|[0-9]{1,3}-[0-9]{1,3}-[0-9]{1,20}") {
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            if let Ok(set) = GtidSet::parse(flavour, &text) {
                prop_assert_eq!(GtidSet::parse(flavour, &set.to_string()), Ok(set));
            }
        }
    }
}
