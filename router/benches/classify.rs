//! What it costs to classify a statement, when it is known and when it is new.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman_router::classify::{Catalogue, Classifier, Mode};

const SLOTS: usize = 8_192;

/// The statements of sysbench's oltp_read_write, and two that are long.
fn statements() -> Vec<(&'static str, String)> {
    let ids = (1..60).map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let orm = format!(
        "SELECT `u`.`id`, `u`.`name`, `o`.`total`, COUNT(DISTINCT `i`.`product_id`) AS `n` FROM `users` AS `u` \
         LEFT OUTER JOIN `orders` AS `o` ON `o`.`user_id` = `u`.`id` INNER JOIN `items` AS `i` ON `i`.`order_id` = `o`.`id` \
         INNER JOIN `products` AS `p` ON `p`.`id` = `i`.`product_id` LEFT JOIN `tags` ON `tags`.`id` = `p`.`tag_id` \
         WHERE `u`.`id` IN ({ids}) AND `o`.`status` = 'paid' GROUP BY `u`.`id` ORDER BY `o`.`total` DESC LIMIT 20"
    );
    let rows = (1..1_000).map(|id| format!("({id}, {id}, 'some text', NULL)")).collect::<Vec<_>>().join(", ");
    let known = [
        ("begin", "BEGIN"),
        ("point_select", "SELECT c FROM sbtest1 WHERE id=5047"),
        ("simple_range", "SELECT c FROM sbtest1 WHERE id BETWEEN 5047 AND 5146"),
        ("sum_range", "SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN 5047 AND 5146"),
        ("order_range", "SELECT c FROM sbtest1 WHERE id BETWEEN 5047 AND 5146 ORDER BY c"),
        ("distinct_range", "SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN 5047 AND 5146 ORDER BY c"),
        ("index_update", "UPDATE sbtest1 SET k=k+1 WHERE id=5047"),
        (
            "non_index_update",
            "UPDATE sbtest1 SET c='68487932199-96439406143-93774651418-41631865787-96406072701-20604855487-25459966574-28203206787-41238978918-19503783441' WHERE id=5047",
        ),
        ("delete", "DELETE FROM sbtest1 WHERE id=5047"),
        (
            "insert",
            "INSERT INTO sbtest1 (id, k, c, pad) VALUES (5047, 5012, '68487932199-96439406143-93774651418-41631865787', '22195207048-70116052123-74140395089-76317954521-98694025897')",
        ),
    ];
    let mut all: Vec<_> = known.into_iter().map(|(name, sql)| (name, sql.to_owned())).collect();
    all.push(("orm_select", orm));
    all.push(("bulk_insert", format!("INSERT INTO t VALUES {rows}")));
    all
}

fn benches(criterion: &mut Criterion) {
    let mode = Mode { multi_statements: true, ..Mode::default() };
    let catalogue = Catalogue::default();
    for (name, sql) in statements() {
        let mut classifier = Classifier::new([42; 32], SLOTS);
        criterion.bench_function(&format!("hit/{name}"), |bencher| {
            bencher.iter(|| classifier.classify(black_box(sql.as_bytes()), &mode, &catalogue));
        });
        // Another version of the catalogue each time: nothing that is cached answers.
        let mut unknown = catalogue.clone();
        criterion.bench_function(&format!("miss/{name}"), |bencher| {
            bencher.iter(|| {
                unknown.version += 1;
                classifier.classify(black_box(sql.as_bytes()), &mode, &unknown)
            });
        });
    }
}

criterion_group!(group, benches);
criterion_main!(group);
