<?php
declare(strict_types=1);

require __DIR__ . '/promises.php';

final class MysqliDriver extends Driver
{
    public function name(): string
    {
        return 'mysqli';
    }

    public function connect(array $options = []): mysqli
    {
        $c = mysqli_init();
        $c->options(MYSQLI_OPT_LOCAL_INFILE, 1);
        $c->options(MYSQLI_OPT_INT_AND_FLOAT_NATIVE, 0);
        $flags = TLS ? MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_DONT_VERIFY_SERVER_CERT : 0;
        $flags |= ($options['compress'] ?? false) ? MYSQLI_CLIENT_COMPRESS : 0;
        $c->real_connect(($options['persistent'] ?? '') . getenv('CLIENT_HOST'), getenv('CLIENT_USER'),
            $options['password'] ?? getenv('CLIENT_PASSWORD'), $options['schema'] ?? SCHEMA, (int) getenv('CLIENT_PORT'), null, $flags);
        $c->set_charset('utf8mb4');
        return $c;
    }

    public function close(object $c): void
    {
        $c->close();
    }

    public function query(object $c, string $sql): array|int
    {
        $result = $c->query($sql);
        return $result instanceof mysqli_result ? $result->fetch_all() : $c->affected_rows;
    }

    public function execute(object $c, string $sql, array $args): array|int
    {
        $statement = $c->prepare($sql);
        $types = '';
        foreach ($args as $n => $arg) {
            $types .= is_string($arg) && strlen($arg) > 1 << 20 ? 'b' : (is_int($arg) ? 'i' : 's');
        }
        $bound = array_map(fn ($n) => $types[$n] === 'b' ? null : $args[$n], array_keys($args));
        $statement->bind_param($types, ...$bound);
        foreach (array_keys($args) as $n) {
            // Long values go ahead in pieces, as COM_STMT_SEND_LONG_DATA.
            if ($types[$n] === 'b') {
                foreach (str_split($args[$n], 1 << 20) as $piece) {
                    $statement->send_long_data($n, $piece);
                }
            }
        }
        $statement->execute();
        $result = $statement->get_result();
        $answer = $result ? $result->fetch_all() : $statement->affected_rows;
        $statement->close();
        return $answer;
    }

    public function insertId(object $c): string
    {
        return (string) $c->insert_id;
    }

    public function begin(object $c): void
    {
        $c->begin_transaction();
    }

    public function commit(object $c): void
    {
        $c->commit();
    }

    public function rollback(object $c): void
    {
        $c->rollback();
    }

    public function error(Throwable $e): array
    {
        return [$e->getCode(), $e->getSqlState()];
    }

    public function results(object $c, string $sql, ?array $args = null): array
    {
        $results = [];
        if ($args === null) {
            $c->multi_query($sql);
            do {
                if ($result = $c->store_result()) {
                    $results[] = $result->fetch_all();
                }
            } while ($c->more_results() && $c->next_result());
            return $results;
        }
        $statement = $c->prepare($sql);
        $statement->execute($args);
        do {
            if ($result = $statement->get_result()) {
                $results[] = $result->fetch_all();
            }
        } while ($statement->more_results() && $statement->next_result());
        return $results;
    }

    public function stream(object $c, string $sql): iterable
    {
        $statement = $c->prepare($sql);
        $statement->attr_set(MYSQLI_STMT_ATTR_CURSOR_TYPE, MYSQLI_CURSOR_TYPE_READ_ONLY);
        $statement->execute();
        $statement->bind_result($n);
        while ($statement->fetch()) {
            yield [$n];
        }
        $statement->close();
    }

    public function ping(object $c): void
    {
        expect($c->ping(), true);
    }

    public function threadId(object $c): ?int
    {
        return $c->thread_id;
    }

    public function warningCount(object $c): ?int
    {
        return $c->warning_count;
    }

    public function changeUser(object $c): void
    {
        $c->change_user(getenv('CLIENT_USER'), getenv('CLIENT_PASSWORD'), SCHEMA);
    }

    public function pool(): void
    {
        // A persistent connection is reset with COM_CHANGE_USER when it is taken again.
        for ($n = 0; $n < 5; $n++) {
            $c = $this->connect(['persistent' => 'p:']);
            expect($this->query($c, 'SELECT @stay'), [[null]]);
            $this->query($c, "SET @stay = 'put'");
            $c->close();
        }
    }
}

run(new MysqliDriver());
