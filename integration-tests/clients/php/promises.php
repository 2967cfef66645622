<?php
// The promises that both PHP extensions keep. A driver is a class with the methods of `Driver`, see mysqli_client.php.
declare(strict_types=1);

ini_set('memory_limit', '1G');
define('SCHEMA', getenv('CLIENT_SCHEMA'));
define('TLS', getenv('CLIENT_TLS') === 'on');
define('MYSQL', getenv('CLIENT_FLAVOUR') === 'mysql');
define('INFILE', getenv('CLIENT_INFILE'));
const UNICODE = 'Weiche 鉄道 🚂 ünï';
const LARGE = 17 << 20;

class Skip extends Exception {}

abstract class Driver
{
    abstract public function name(): string;
    abstract public function connect(array $options = []): object;
    abstract public function close(object $c): void;
    /** Rows of a text query as lists, or the affected rows. */
    abstract public function query(object $c, string $sql): array|int;
    /** The same through a prepared statement. */
    abstract public function execute(object $c, string $sql, array $args): array|int;
    abstract public function insertId(object $c): string;
    abstract public function begin(object $c): void;
    abstract public function commit(object $c): void;
    abstract public function rollback(object $c): void;
    /** Code and SQLSTATE. */
    abstract public function error(Throwable $e): array;
    /** Every result of a text or prepared statement that gives several. */
    abstract public function results(object $c, string $sql, ?array $args = null): array;
    abstract public function stream(object $c, string $sql): iterable;

    public function ping(object $c): void { throw new Skip('the extension has no ping'); }
    public function threadId(object $c): ?int { return null; }
    public function warningCount(object $c): ?int { return null; }
    public function changeUser(object $c): void { throw new Skip('the extension has no COM_CHANGE_USER'); }
    public function pool(): void { throw new Skip('the extension has no pool'); }
}

function shown(mixed $value): string
{
    $text = json_encode($value, JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_UNICODE);
    return strlen($text) < 200 ? $text : substr($text, 0, 200) . '...';
}

function expect(mixed $actual, mixed $expected): void
{
    if ($actual !== $expected) {
        throw new Exception('expected ' . shown($expected) . ', got ' . shown($actual));
    }
}

function hundred_thousand(): string
{
    $digits = '(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL'
        . ' SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)';
    $tables = array_map(fn ($alias) => "$digits $alias", str_split('abcde'));
    return 'SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM ' . implode(', ', $tables);
}

function promises(Driver $d): array
{
    $bytes = implode('', array_map('chr', range(0, 255)));
    $value = fn ($c, $sql) => $d->query($c, $sql)[0][0];
    $count = fn ($c, $name) => (int) $d->query($c, "SELECT COUNT(*) FROM journeys WHERE name LIKE '$name'")[0][0];
    $elsewhere = function (callable $action) use ($d) {
        $other = $d->connect();
        $answer = $action($other);
        $d->close($other);
        return $answer;
    };
    $fails = function (int $code, string $sqlstate, callable $action) use ($d) {
        try {
            $action();
        } catch (mysqli_sql_exception | PDOException $e) {
            expect($d->error($e), [$code, $sqlstate]);
            return;
        }
        throw new Exception("expected error $code, got none");
    };

    return [
        'connect' => fn ($c) => expect((int) $value($c, 'SELECT 1 + 1'), 2),
        // Both extensions report HY000 for a connection that was refused.
        'wrong-password' => fn () => $fails(1045, 'HY000', fn () => $d->connect(['password' => 'wrong'])),
        'unknown-schema' => fn () => $fails(1049, 'HY000', fn () => $d->connect(['schema' => SCHEMA . '_missing'])),
        'ping' => fn ($c) => $d->ping($c),
        'values-text' => function ($c) use ($d, $bytes) {
            $row = $d->query($c, "SELECT NULL, -9223372036854775808, 18446744073709551615, CAST('-1234567890.0123456789' AS DECIMAL(20,10)),"
                . " x'" . bin2hex($bytes) . "', ''")[0];
            expect(array_map(fn ($v) => $v === null ? null : (string) $v, $row),
                [null, '-9223372036854775808', '18446744073709551615', '-1234567890.0123456789', $bytes, '']);
        },
        'values-prepared' => function ($c) use ($d, $bytes) {
            $row = $d->execute($c, 'SELECT ?, -9223372036854775808, 18446744073709551615, CAST(? AS DECIMAL(20,10)), CAST(? AS BINARY), ?',
                [null, '-1234567890.0123456789', $bytes, ''])[0];
            expect(array_map(fn ($v) => $v === null ? null : (string) $v, $row),
                [null, '-9223372036854775808', '18446744073709551615', '-1234567890.0123456789', $bytes, '']);
        },
        'unicode' => function ($c) use ($d, $value) {
            $d->execute($c, 'INSERT INTO journeys (name) VALUES (?)', [UNICODE]);
            expect($d->query($c, "SELECT name FROM journeys WHERE name = '" . UNICODE . "'"), [[UNICODE]]);
            expect((int) $value($c, "SELECT CHAR_LENGTH('" . UNICODE . "')"), mb_strlen_plain(UNICODE));
        },
        'prepared-reuse' => function ($c) use ($d) {
            for ($n = 0; $n < 20; $n++) {
                expect((int) $d->execute($c, 'SELECT CAST(? AS SIGNED) * 2', [$n])[0][0], 2 * $n);
            }
        },
        'last-insert-id' => function ($c) use ($d, $value) {
            $d->query($c, "INSERT INTO journeys (name) VALUES ('id-1')");
            $id = $d->insertId($c);
            expect($id > 0, true);
            expect((string) $value($c, 'SELECT LAST_INSERT_ID()'), $id);
            expect($value($c, "SELECT name FROM journeys WHERE id = $id"), 'id-1');
        },
        'affected-rows' => function ($c) use ($d) {
            expect($d->query($c, "INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)"), 3);
            expect($d->execute($c, "UPDATE journeys SET amount = ? WHERE name LIKE 'rows-%' AND amount = 1", [5]), 2);
            expect($d->query($c, "DELETE FROM journeys WHERE name LIKE 'rows-%'"), 3);
        },
        'read-your-writes' => function ($c) use ($d) {
            for ($n = 0; $n < 50; $n++) {
                $d->execute($c, 'INSERT INTO journeys (name, amount) VALUES (?, ?)', ["ryw-$n", $n]);
                $rows = $n % 2 ? $d->execute($c, 'SELECT amount FROM journeys WHERE name = ?', ["ryw-$n"])
                    : $d->query($c, "SELECT amount FROM journeys WHERE name = 'ryw-$n'");
                expect(array_map(fn ($row) => (int) $row[0], $rows), [$n]);
            }
        },
        'commit' => function ($c) use ($d, $count, $elsewhere) {
            $d->begin($c);
            $d->query($c, "INSERT INTO journeys (name) VALUES ('commit-1')");
            expect($elsewhere(fn ($other) => $count($other, 'commit-1')), 0);
            $d->commit($c);
            expect($elsewhere(fn ($other) => $count($other, 'commit-1')), 1);
        },
        'rollback' => function ($c) use ($d, $count) {
            $d->begin($c);
            $d->query($c, "INSERT INTO journeys (name) VALUES ('rollback-1')");
            expect($count($c, 'rollback-1'), 1);
            $d->rollback($c);
            expect($count($c, 'rollback-1'), 0);
        },
        'autocommit-off' => fn ($c) => $elsewhere(function ($other) use ($c, $d, $count, $elsewhere) {
            $d->query($other, 'SET autocommit = 0');
            $d->query($other, "INSERT INTO journeys (name) VALUES ('off-1')");
            expect($count($c, 'off-1'), 0);
            $d->query($other, 'COMMIT');
            expect($elsewhere(fn ($third) => $count($third, 'off-1')), 1);
        }),
        'savepoint' => function ($c) use ($d) {
            $d->begin($c);
            $d->query($c, "INSERT INTO journeys (name) VALUES ('save-1')");
            $d->query($c, 'SAVEPOINT a');
            $d->query($c, "INSERT INTO journeys (name) VALUES ('save-2')");
            $d->query($c, 'ROLLBACK TO SAVEPOINT a');
            $d->commit($c);
            expect($d->query($c, "SELECT name FROM journeys WHERE name LIKE 'save-%'"), [['save-1']]);
        },
        'error-syntax' => function ($c) use ($d, $fails, $value) {
            $fails(1064, '42000', fn () => $d->query($c, 'SELEC 1'));
            expect((int) $value($c, 'SELECT 1'), 1);
        },
        'error-duplicate' => function ($c) use ($d, $fails, $count) {
            $d->query($c, "INSERT INTO journeys (name) VALUES ('twice')");
            $fails(1062, '23000', fn () => $d->query($c, "INSERT INTO journeys (name) VALUES ('twice')"));
            expect($count($c, 'twice'), 1);
        },
        'error-prepared' => function ($c) use ($d, $fails, $value) {
            $fails(1146, '42S02', fn () => $d->execute($c, 'SELECT * FROM missing WHERE id = ?', [1]));
            expect((int) $value($c, 'SELECT 1'), 1);
        },
        'many-rows' => function ($c) use ($d) {
            expect(array_sum(array_column($d->query($c, hundred_thousand()), 0)), 4999950000);
        },
        'large-row' => function ($c) use ($d, $value) {
            $payload = str_repeat(random_bytes(1 << 20), LARGE >> 20);
            $d->execute($c, 'INSERT INTO journeys (name, payload) VALUES (?, ?)', ['large', $payload]);
            expect($value($c, "SELECT SHA2(payload, 256) FROM journeys WHERE name = 'large'"), hash('sha256', $payload));
            expect($value($c, "SELECT payload FROM journeys WHERE name = 'large'") === $payload, true);
            expect($d->execute($c, 'SELECT payload FROM journeys WHERE name = ?', ['large'])[0][0] === $payload, true);
            $d->query($c, "DELETE FROM journeys WHERE name = 'large'");
        },
        'local-infile' => function ($c) use ($d, $value) {
            $d->query($c, 'CREATE TABLE platforms (n INT PRIMARY KEY, t VARCHAR(100) CHARACTER SET utf8mb4)');
            expect($d->query($c, "LOAD DATA LOCAL INFILE '" . INFILE . "' INTO TABLE platforms CHARACTER SET utf8mb4"
                . " FIELDS TERMINATED BY ',' (n, t)"), 1000);
            expect((int) $value($c, 'SELECT SUM(n) FROM platforms'), 500500);
        },
        'call' => function ($c) use ($d, $value) {
            $expected = [[['7']], [['8', 'x']]];
            $strings = fn ($results) => array_map(fn ($rows) => array_map(fn ($row) => array_map('strval', $row), $rows), $results);
            expect($strings($d->results($c, 'CALL two_results(7)')), $expected);
            expect($strings($d->results($c, 'CALL two_results(?)', [7])), $expected);
            expect((int) $value($c, 'SELECT 1'), 1);
        },
        'multi-statements' => function ($c) use ($d, $count) {
            $results = $d->results($c, "SELECT 1; INSERT INTO journeys (name) VALUES ('multi'); SELECT 2");
            expect(array_map(fn ($rows) => (int) $rows[0][0], $results), [1, 2]);
            expect($count($c, 'multi'), 1);
        },
        'warnings' => function ($c) use ($d) {
            $d->query($c, "SELECT CAST('1x' AS SIGNED)");
            if ($d->warningCount($c) !== null) {
                expect($d->warningCount($c), 1);
            }
            expect((int) $d->query($c, 'SHOW WARNINGS')[0][1], 1292);
        },
        'session-state' => function ($c) use ($d, $value) {
            $d->query($c, "SET @stay = 'put'");
            $d->query($c, "SET SESSION sql_mode = 'ANSI_QUOTES'");
            $d->query($c, 'CREATE TEMPORARY TABLE passengers (n INT)');
            $d->query($c, 'INSERT INTO passengers VALUES (1), (2)');
            for ($n = 0; $n < 5; $n++) {
                expect($value($c, 'SELECT @stay'), 'put');
                expect($value($c, 'SELECT @@session.sql_mode'), 'ANSI_QUOTES');
                expect((int) $value($c, 'SELECT COUNT("n") FROM passengers'), 2);
            }
            $d->query($c, 'DROP TEMPORARY TABLE passengers');
            $d->query($c, 'SET SESSION sql_mode = DEFAULT');
        },
        'schema-switch' => function ($c) use ($d, $value, $count) {
            $other = SCHEMA . '_other';
            $d->query($c, "CREATE DATABASE $other");
            $d->query($c, "USE $other");
            $d->query($c, 'CREATE TABLE here (n INT)');
            expect($value($c, 'SELECT DATABASE()'), $other);
            expect($d->query($c, 'SELECT * FROM here'), []);
            $d->query($c, 'USE ' . SCHEMA);
            expect($count($c, 'nothing'), 0);
            $d->query($c, "DROP DATABASE $other");
        },
        'cursor' => function ($c) use ($d) {
            $sum = 0;
            foreach ($d->stream($c, hundred_thousand()) as $row) {
                $sum += (int) $row[0];
            }
            expect($sum, 4999950000);
        },
        'compression' => function () use ($d, $value) {
            $c = $d->connect(['compress' => true]);
            expect(strlen($value($c, "SELECT REPEAT('a', 1000000)")), 1000000);
            expect(count($d->query($c, hundred_thousand())), 100000);
            $d->close($c);
        },
        'change-user' => fn () => $elsewhere(function ($other) use ($d, $value) {
            $d->query($other, "SET @stay = 'put'");
            $d->changeUser($other);
            expect([$value($other, 'SELECT @stay'), $value($other, 'SELECT DATABASE()')], [null, SCHEMA]);
        }),
        'kill' => fn ($c) => $elsewhere(function ($other) use ($d, $c, $value) {
            $id = (int) $value($other, 'SELECT CONNECTION_ID()');
            if ($d->threadId($other) !== null) {
                expect($d->threadId($other), $id);
            }
            $d->query($c, "KILL $id");
            try {
                $d->query($other, 'SELECT 1');
            } catch (mysqli_sql_exception | PDOException $e) {
                expect(in_array($d->error($e)[0], [2006, 2013, 1927, 4031], true), true);
                return;
            }
            throw new Exception('expected the killed connection to be gone');
        }),
        'pool' => fn () => $d->pool(),
    ];
}

function mb_strlen_plain(string $utf8): int
{
    return preg_match_all('/./us', $utf8);
}

function run(Driver $d): void
{
    mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
    set_error_handler(function ($level, $message) {
        // A lost connection is told by a PHP warning as well as by the exception.
        return str_contains($message, 'gone away') || str_contains($message, 'Error reading result') || str_contains($message, 'packet');
    });
    echo "# {$d->name()} " . PHP_VERSION . ' ' . mysqli_get_client_info() . "\n";
    $setup = $d->connect();
    $d->query($setup, 'CREATE TABLE journeys (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,'
        . ' name VARCHAR(100) CHARACTER SET utf8mb4 UNIQUE, amount BIGINT, payload LONGBLOB) ENGINE=InnoDB');
    $d->query($setup, "CREATE PROCEDURE two_results(IN n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second, 'x' AS third; END");
    $c = null;
    foreach (promises($d) as $name => $promise) {
        try {
            $c ??= $d->connect();
            $promise($c);
            echo "ok $name\n";
        } catch (Skip $skip) {
            echo "skip $name: {$skip->getMessage()}\n";
        } catch (Throwable $e) {
            echo "not ok $name: " . get_class($e) . ': ' . str_replace("\n", ' ', $e->getMessage()) . " (line {$e->getLine()})\n";
            $c = null;
        }
    }
    echo "done\n";
}
