<?php
declare(strict_types=1);

require __DIR__ . '/promises.php';

final class PdoDriver extends Driver
{
    public function name(): string
    {
        return 'PDO';
    }

    public function connect(array $options = []): PDO
    {
        $dsn = sprintf('mysql:host=%s;port=%s;dbname=%s;charset=utf8mb4', getenv('CLIENT_HOST'), getenv('CLIENT_PORT'), $options['schema'] ?? SCHEMA);
        $tls = TLS ? [PDO::MYSQL_ATTR_SSL_VERIFY_SERVER_CERT => false, PDO::MYSQL_ATTR_SSL_CIPHER => 'DEFAULT'] : [];
        return new PDO($dsn, getenv('CLIENT_USER'), $options['password'] ?? getenv('CLIENT_PASSWORD'), $tls + [
            PDO::ATTR_EMULATE_PREPARES => false,
            PDO::ATTR_STRINGIFY_FETCHES => true,
            PDO::MYSQL_ATTR_LOCAL_INFILE => true,
            PDO::MYSQL_ATTR_COMPRESS => $options['compress'] ?? false,
            PDO::ATTR_PERSISTENT => $options['persistent'] ?? false,
        ]);
    }

    public function close(object $c): void
    {
        // A PDO connection closes when the last reference to it goes.
    }

    public function query(object $c, string $sql): array|int
    {
        // Emulated statements go as COM_QUERY.
        $c->setAttribute(PDO::ATTR_EMULATE_PREPARES, true);
        $statement = $c->query($sql);
        $c->setAttribute(PDO::ATTR_EMULATE_PREPARES, false);
        return $statement->columnCount() ? $statement->fetchAll(PDO::FETCH_NUM) : $statement->rowCount();
    }

    public function execute(object $c, string $sql, array $args): array|int
    {
        $statement = $c->prepare($sql);
        $statement->execute($args);
        return $statement->columnCount() ? $statement->fetchAll(PDO::FETCH_NUM) : $statement->rowCount();
    }

    public function insertId(object $c): string
    {
        return $c->lastInsertId();
    }

    public function begin(object $c): void
    {
        $c->beginTransaction();
    }

    public function commit(object $c): void
    {
        $c->commit();
    }

    public function rollback(object $c): void
    {
        $c->rollBack();
    }

    public function error(Throwable $e): array
    {
        return [$e->errorInfo[1] ?? $e->getCode(), $e->errorInfo[0] ?? ''];
    }

    public function results(object $c, string $sql, ?array $args = null): array
    {
        $c->setAttribute(PDO::ATTR_EMULATE_PREPARES, $args === null);
        $statement = $c->prepare($sql);
        $statement->execute($args);
        $results = [];
        do {
            // It gives the closing OK of a prepared CALL as an empty result.
            if ($statement->columnCount() && $rows = $statement->fetchAll(PDO::FETCH_NUM)) {
                $results[] = $rows;
            }
        } while ($statement->nextRowset());
        $c->setAttribute(PDO::ATTR_EMULATE_PREPARES, false);
        return $results;
    }

    public function stream(object $c, string $sql): iterable
    {
        $c->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, false);
        $statement = $c->query($sql);
        while ($row = $statement->fetch(PDO::FETCH_NUM)) {
            yield $row;
        }
        $statement->closeCursor();
        $c->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, true);
    }

    public function pool(): void
    {
        for ($n = 0; $n < 5; $n++) {
            $c = $this->connect(['persistent' => true]);
            expect($this->query($c, 'SELECT 1'), [['1']]);
            $c->beginTransaction();
            $this->query($c, "INSERT INTO journeys (name) VALUES ('pool')");
            // A transaction left open is rolled back with the last reference.
            $c = null;
        }
        expect($this->query($this->connect(), "SELECT COUNT(*) FROM journeys WHERE name = 'pool'"), [['0']]);
    }
}

run(new PdoDriver());
