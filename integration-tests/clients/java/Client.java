import java.io.ByteArrayInputStream;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.security.MessageDigest;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import org.mariadb.jdbc.MariaDbPoolDataSource;

/** MariaDB Connector/J through JDBC. */
public final class Client {
    static final String SCHEMA = System.getenv("CLIENT_SCHEMA");
    static final boolean TLS = "on".equals(System.getenv("CLIENT_TLS"));
    static final boolean MYSQL = "mysql".equals(System.getenv("CLIENT_FLAVOUR"));
    static final String UNICODE = "Weiche 鉄道 🚂 ünï";
    static final int LARGE = 17 << 20;
    static final String HUNDRED_THOUSAND = hundredThousand();

    interface Promise {
        void keep(Connection text, Connection prepared) throws Exception;
    }

    interface Action {
        void run() throws Exception;
    }

    static String hundredThousand() {
        StringBuilder digits = new StringBuilder("(SELECT 0 d");
        for (int n = 1; n < 10; n++) {
            digits.append(" UNION ALL SELECT ").append(n);
        }
        List<String> tables = new ArrayList<>();
        for (String alias : "a b c d e".split(" ")) {
            tables.add(digits + ") " + alias);
        }
        return "SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM " + String.join(", ", tables);
    }

    static String url(String schema, String options) {
        // Asked for at run time so that MySQL's accounts can log in without TLS.
        return "jdbc:mariadb://" + System.getenv("CLIENT_HOST") + ":" + System.getenv("CLIENT_PORT") + "/" + schema
            + "?allowPublicKeyRetrieval=true&allowLocalInfile=true&allowMultiQueries=true&maxAllowedPacket=67108864"
            + "&useSsl=" + TLS + (TLS ? "&trustServerCertificate=true" : "") + options;
    }

    static Connection connect(String options) throws SQLException {
        return DriverManager.getConnection(url(SCHEMA, options), System.getenv("CLIENT_USER"), System.getenv("CLIENT_PASSWORD"));
    }

    static void expect(Object actual, Object expected) {
        if (!Objects.deepEquals(actual, expected)) {
            throw new AssertionError("expected " + shown(expected) + ", got " + shown(actual));
        }
    }

    static String shown(Object value) {
        String text = value instanceof byte[] ? Arrays.toString((byte[]) value) : String.valueOf(value);
        return text.length() < 200 ? text : text.substring(0, 200) + "...";
    }

    static void fails(int code, String sqlstate, Action action) throws Exception {
        try {
            action.run();
        } catch (SQLException error) {
            expect(error.getErrorCode() + "/" + error.getSQLState(), code + "/" + sqlstate);
            return;
        }
        throw new AssertionError("expected error " + code + ", got none");
    }

    static PreparedStatement bind(Connection c, String sql, Object... args) throws SQLException {
        PreparedStatement statement = c.prepareStatement(sql, Statement.RETURN_GENERATED_KEYS);
        for (int n = 0; n < args.length; n++) {
            statement.setObject(n + 1, args[n]);
        }
        return statement;
    }

    static int update(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement statement = bind(c, sql, args)) {
            return statement.executeUpdate();
        }
    }

    static String value(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement statement = bind(c, sql, args); ResultSet rows = statement.executeQuery()) {
            rows.next();
            return rows.getString(1);
        }
    }

    static String count(Connection c, String name) throws SQLException {
        return value(c, "SELECT COUNT(*) FROM journeys WHERE name = ?", name);
    }

    static String elsewhere(String name) throws SQLException {
        try (Connection other = connect("")) {
            return count(other, name);
        }
    }

    static List<String> results(Statement statement, boolean rows) throws SQLException {
        List<String> all = new ArrayList<>();
        while (rows || statement.getUpdateCount() != -1) {
            if (rows) {
                ResultSet result = statement.getResultSet();
                while (result.next()) {
                    List<String> cells = new ArrayList<>();
                    for (int n = 1; n <= result.getMetaData().getColumnCount(); n++) {
                        cells.add(result.getString(n));
                    }
                    all.add(String.join(",", cells));
                }
            }
            rows = statement.getMoreResults();
        }
        return all;
    }

    static long sum(ResultSet rows) throws SQLException {
        long sum = 0;
        while (rows.next()) {
            sum += rows.getLong(1);
        }
        return sum;
    }

    static byte[] allBytes() {
        byte[] bytes = new byte[256];
        for (int n = 0; n < 256; n++) {
            bytes[n] = (byte) n;
        }
        return bytes;
    }

    static String hex(byte[] bytes) {
        return String.format("%0" + 2 * bytes.length + "x", new BigInteger(1, bytes));
    }

    static void checkValues(ResultSet row) throws SQLException {
        row.next();
        expect(row.getObject(1), null);
        expect(row.getLong(2), Long.MIN_VALUE);
        expect(row.getString(3), "18446744073709551615");
        expect(row.getBigDecimal(4), new BigDecimal("-1234567890.0123456789"));
        expect(row.getBytes(5), allBytes());
        expect(row.getString(6), "");
    }

    static Map<String, Promise> promises() {
        Map<String, Promise> all = new LinkedHashMap<>();
        connections(all);
        values(all);
        writes(all);
        errors(all);
        state(all);
        return all;
    }

    static void connections(Map<String, Promise> all) {
        all.put("connect", (text, prepared) -> expect(value(text, "SELECT 1 + 1"), "2"));
        all.put("wrong-password", (text, prepared) -> fails(1045, "28000",
            () -> DriverManager.getConnection(url(SCHEMA, ""), System.getenv("CLIENT_USER"), "wrong")));
        all.put("unknown-schema", (text, prepared) -> fails(1049, "42000",
            () -> DriverManager.getConnection(url(SCHEMA + "_missing", ""), System.getenv("CLIENT_USER"), System.getenv("CLIENT_PASSWORD"))));
        all.put("ping", (text, prepared) -> expect(text.isValid(5), true));
        all.put("compression", (text, prepared) -> {
            try (Connection c = connect("&useCompression=true")) {
                expect(value(c, "SELECT REPEAT('a', 1000000)").length(), 1_000_000);
                expect(sum(c.createStatement().executeQuery(HUNDRED_THOUSAND)), 4_999_950_000L);
            }
        });
        all.put("kill", (text, prepared) -> {
            try (Connection other = connect("")) {
                String id = value(other, "SELECT CONNECTION_ID()");
                Thread killer = new Thread(() -> {
                    try {
                        Thread.sleep(300);
                        update(text, "KILL QUERY " + id);
                    } catch (Exception error) {
                        throw new IllegalStateException(error);
                    }
                });
                killer.start();
                fails(1317, "70100", () -> value(other,
                    "SELECT COUNT(*) FROM (" + HUNDRED_THOUSAND + ") x JOIN (" + HUNDRED_THOUSAND + ") y ON x.n > y.n + SLEEP(0)"));
                killer.join();
                expect(value(other, "SELECT 5"), "5");
            }
        });
        all.put("pool", (text, prepared) -> {
            MariaDbPoolDataSource pool = new MariaDbPoolDataSource(url(SCHEMA, "&maxPoolSize=2&useResetConnection=true"));
            pool.setUser(System.getenv("CLIENT_USER"));
            pool.setPassword(System.getenv("CLIENT_PASSWORD"));
            for (int n = 0; n < 20; n++) {
                try (Connection c = pool.getConnection()) {
                    // It resets connections of MariaDB from 10.2 on, and of MySQL not at all.
                    expect(value(c, "SELECT @stay") == null || MYSQL, true);
                    update(c, "SET @stay = 'put'");
                    c.setAutoCommit(false);
                    update(c, "INSERT INTO journeys (name) VALUES ('pool')");
                }
            }
            expect(count(text, "pool"), "0");
            pool.close();
        });
    }

    static void values(Map<String, Promise> all) {
        all.put("values-text", (text, prepared) -> {
            try (Statement statement = text.createStatement()) {
                checkValues(statement.executeQuery("SELECT NULL, -9223372036854775808, 18446744073709551615,"
                    + " CAST('-1234567890.0123456789' AS DECIMAL(20,10)), x'" + hex(allBytes()) + "', ''"));
            }
        });
        all.put("values-prepared", (text, prepared) -> {
            try (PreparedStatement statement = bind(prepared, "SELECT ?, -9223372036854775808, 18446744073709551615,"
                    + " CAST(? AS DECIMAL(20,10)), CAST(? AS BINARY), ?", null, "-1234567890.0123456789", allBytes(), "")) {
                checkValues(statement.executeQuery());
            }
        });
        all.put("unicode", (text, prepared) -> {
            update(prepared, "INSERT INTO journeys (name) VALUES (?)", UNICODE);
            // What another connection wrote is there for certain after a ping.
            expect(text.isValid(5), true);
            expect(value(text, "SELECT name FROM journeys WHERE name = ?", UNICODE), UNICODE);
            expect(value(prepared, "SELECT name FROM journeys WHERE name = ?", UNICODE), UNICODE);
        });
        all.put("prepared-reuse", (text, prepared) -> {
            try (PreparedStatement statement = prepared.prepareStatement("SELECT CAST(? AS SIGNED) * 2")) {
                for (int n = 0; n < 20; n++) {
                    statement.setInt(1, n);
                    expect(sum(statement.executeQuery()), 2L * n);
                }
            }
        });
        all.put("many-rows", (text, prepared) -> {
            for (Connection c : List.of(text, prepared)) {
                try (PreparedStatement statement = bind(c, HUNDRED_THOUSAND + " WHERE ? = 1", 1)) {
                    expect(sum(statement.executeQuery()), 4_999_950_000L);
                }
            }
        });
        all.put("cursor", (text, prepared) -> {
            for (Connection c : List.of(text, prepared)) {
                try (PreparedStatement statement = bind(c, HUNDRED_THOUSAND + " WHERE ? = 1", 1)) {
                    statement.setFetchSize(1000);
                    expect(sum(statement.executeQuery()), 4_999_950_000L);
                }
            }
        });
        all.put("large-row", (text, prepared) -> {
            byte[] payload = new byte[LARGE];
            new Random(7).nextBytes(payload);
            String digest = hex(MessageDigest.getInstance("SHA-256").digest(payload));
            for (Connection c : List.of(text, prepared)) {
                try (PreparedStatement insert = c.prepareStatement("INSERT INTO journeys (name, payload) VALUES ('large', ?)")) {
                    insert.setBlob(1, new ByteArrayInputStream(payload));
                    insert.executeUpdate();
                }
                expect(value(c, "SELECT SHA2(payload, 256) FROM journeys WHERE name = 'large'"), digest);
                try (ResultSet row = bind(c, "SELECT payload FROM journeys WHERE name = ?", "large").executeQuery()) {
                    row.next();
                    expect(row.getBytes(1), payload);
                }
                update(c, "DELETE FROM journeys WHERE name = 'large'");
            }
        });
    }

    static void writes(Map<String, Promise> all) {
        all.put("last-insert-id", (text, prepared) -> {
            try (PreparedStatement insert = bind(text, "INSERT INTO journeys (name) VALUES ('id-1')")) {
                insert.executeUpdate();
                ResultSet keys = insert.getGeneratedKeys();
                keys.next();
                long id = keys.getLong(1);
                expect(value(text, "SELECT LAST_INSERT_ID()"), String.valueOf(id));
                expect(value(text, "SELECT name FROM journeys WHERE id = ?", id), "id-1");
            }
        });
        all.put("affected-rows", (text, prepared) -> {
            expect(update(text, "INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)"), 3);
            expect(update(prepared, "UPDATE journeys SET amount = ? WHERE name LIKE 'rows-%' AND amount = 1", 5), 2);
            expect(update(text, "DELETE FROM journeys WHERE name LIKE 'rows-%'"), 3);
        });
        all.put("batch", (text, prepared) -> {
            // Against MariaDB the driver sends a batch as one COM_STMT_BULK_EXECUTE.
            try (PreparedStatement insert = prepared.prepareStatement("INSERT INTO journeys (name, amount) VALUES (?, ?)")) {
                for (int n = 0; n < 500; n++) {
                    insert.setString(1, "batch-" + n);
                    insert.setInt(2, n);
                    insert.addBatch();
                }
                expect(insert.executeBatch().length, 500);
            }
            expect(value(prepared, "SELECT SUM(amount) FROM journeys WHERE name LIKE 'batch-%'"), "124750");
        });
        all.put("read-your-writes", (text, prepared) -> {
            for (int n = 0; n < 50; n++) {
                Connection c = n % 2 == 0 ? text : prepared;
                update(c, "INSERT INTO journeys (name, amount) VALUES (?, ?)", "ryw-" + n, n);
                expect(value(c, "SELECT amount FROM journeys WHERE name = ?", "ryw-" + n), String.valueOf(n));
            }
        });
        all.put("commit", (text, prepared) -> {
            prepared.setAutoCommit(false);
            update(prepared, "INSERT INTO journeys (name) VALUES (?)", "commit-1");
            expect(elsewhere("commit-1"), "0");
            prepared.commit();
            expect(elsewhere("commit-1"), "1");
            prepared.setAutoCommit(true);
            expect(text.isValid(5), true);
            text.setReadOnly(true);
            text.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            expect(count(text, "commit-1"), "1");
            text.setReadOnly(false);
        });
        all.put("rollback", (text, prepared) -> {
            prepared.setAutoCommit(false);
            update(prepared, "INSERT INTO journeys (name) VALUES (?)", "rollback-1");
            expect(count(prepared, "rollback-1"), "1");
            prepared.rollback();
            expect(count(prepared, "rollback-1"), "0");
            prepared.setAutoCommit(true);
        });
        all.put("autocommit-off", (text, prepared) -> {
            try (Connection off = connect("&autocommit=false")) {
                update(off, "INSERT INTO journeys (name) VALUES ('off-1')");
                expect(elsewhere("off-1"), "0");
                off.commit();
                expect(elsewhere("off-1"), "1");
            }
        });
        all.put("savepoint", (text, prepared) -> {
            text.setAutoCommit(false);
            update(text, "INSERT INTO journeys (name) VALUES ('save-1')");
            var savepoint = text.setSavepoint();
            update(text, "INSERT INTO journeys (name) VALUES ('save-2')");
            text.rollback(savepoint);
            text.commit();
            text.setAutoCommit(true);
            expect(value(text, "SELECT GROUP_CONCAT(name) FROM journeys WHERE name LIKE 'save-%'"), "save-1");
        });
        all.put("local-infile", (text, prepared) -> {
            update(text, "CREATE TABLE platforms (n INT PRIMARY KEY, t VARCHAR(100) CHARACTER SET utf8mb4)");
            expect(update(text, "LOAD DATA LOCAL INFILE '" + System.getenv("CLIENT_INFILE")
                + "' INTO TABLE platforms CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' (n, t)"), 1000);
            expect(value(text, "SELECT SUM(n) FROM platforms"), "500500");
        });
    }

    static void errors(Map<String, Promise> all) {
        all.put("error-syntax", (text, prepared) -> {
            fails(1064, "42000", () -> update(text, "SELEC 1"));
            expect(value(text, "SELECT 1"), "1");
        });
        all.put("error-duplicate", (text, prepared) -> {
            update(text, "INSERT INTO journeys (name) VALUES ('twice')");
            fails(1062, "23000", () -> update(prepared, "INSERT INTO journeys (name) VALUES (?)", "twice"));
            expect(count(text, "twice"), "1");
        });
        all.put("error-prepared", (text, prepared) -> {
            fails(1146, "42S02", () -> value(prepared, "SELECT * FROM missing WHERE id = ?", 1));
            expect(value(prepared, "SELECT ?", 1), "1");
        });
    }

    static void state(Map<String, Promise> all) {
        all.put("call", (text, prepared) -> {
            for (Connection c : List.of(text, prepared)) {
                try (CallableStatement call = c.prepareCall("{call two_results(?)}")) {
                    call.setInt(1, 7);
                    expect(results(call, call.execute()), List.of("7", "8,x"));
                }
                expect(value(c, "SELECT 1"), "1");
            }
        });
        all.put("multi-statements", (text, prepared) -> {
            try (Statement statement = text.createStatement()) {
                boolean rows = statement.execute("SELECT 1; INSERT INTO journeys (name) VALUES ('multi'); SELECT 2");
                expect(results(statement, rows), List.of("1", "2"));
            }
            expect(count(text, "multi"), "1");
        });
        all.put("warnings", (text, prepared) -> {
            try (Statement statement = text.createStatement()) {
                statement.executeQuery("SELECT CAST('1x' AS SIGNED)");
                // The driver asks SHOW WARNINGS for the text.
                expect(statement.getWarnings().getErrorCode(), 1292);
            }
        });
        all.put("session-state", (text, prepared) -> {
            try (Connection c = connect("")) {
                update(c, "SET @stay = 'put'");
                update(c, "SET SESSION sql_mode = 'ANSI_QUOTES'");
                update(c, "CREATE TEMPORARY TABLE passengers (n INT)");
                update(c, "INSERT INTO passengers VALUES (1), (2)");
                for (int n = 0; n < 5; n++) {
                    expect(value(c, "SELECT @stay"), "put");
                    expect(value(c, "SELECT @@session.sql_mode"), "ANSI_QUOTES");
                    expect(value(c, "SELECT COUNT(\"n\") FROM passengers"), "2");
                }
            }
        });
        all.put("schema-switch", (text, prepared) -> {
            update(text, "CREATE DATABASE " + SCHEMA + "_other");
            text.setCatalog(SCHEMA + "_other");
            update(text, "CREATE TABLE here (n INT)");
            expect(value(text, "SELECT DATABASE()"), SCHEMA + "_other");
            expect(value(text, "SELECT COUNT(*) FROM here"), "0");
            text.setCatalog(SCHEMA);
            expect(count(text, "nothing"), "0");
            update(text, "DROP DATABASE " + SCHEMA + "_other");
        });
    }

    public static void main(String[] args) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "off");
        try (Connection setup = connect("")) {
            System.out.println("# MariaDB Connector/J " + setup.getMetaData().getDriverVersion());
            update(setup, "CREATE TABLE journeys (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
                + " name VARCHAR(100) CHARACTER SET utf8mb4 UNIQUE, amount BIGINT, payload LONGBLOB) ENGINE=InnoDB");
            update(setup, "CREATE PROCEDURE two_results(IN n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second, 'x' AS third; END");
        }
        Connection text = null;
        Connection prepared = null;
        for (Map.Entry<String, Promise> promise : promises().entrySet()) {
            try {
                text = text == null ? connect("") : text;
                prepared = prepared == null ? connect("&useServerPrepStmts=true") : prepared;
                promise.getValue().keep(text, prepared);
                System.out.println("ok " + promise.getKey());
            } catch (Throwable error) {
                System.out.println("not ok " + promise.getKey() + ": " + String.valueOf(error).replace('\n', ' '));
                text = prepared = null;
            }
        }
        System.out.println("done");
        System.exit(0);
    }
}
