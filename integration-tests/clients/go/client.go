// The go-sql-driver/mysql driver through database/sql.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	unicode = "Weiche 鉄道 🚂 ünï"
	large   = 17 << 20
)

// version is set when the programme is linked.
var version string

var (
	schema          = os.Getenv("CLIENT_SCHEMA")
	ctx             = context.Background()
	hundredThousand = manyRows()
)

func manyRows() string {
	digits := "(SELECT 0 d"
	for n := 1; n < 10; n++ {
		digits += fmt.Sprintf(" UNION ALL SELECT %d", n)
	}
	tables := []string{}
	for _, alias := range "abcde" {
		tables = append(tables, fmt.Sprintf("%s) %c", digits, alias))
	}
	return "SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM " + strings.Join(tables, ", ")
}

// open returns a pool; `interpolate` sends arguments as text instead of preparing the statement.
func open(interpolate bool, change func(*mysql.Config)) *sql.DB {
	config := mysql.NewConfig()
	config.User, config.Passwd = os.Getenv("CLIENT_USER"), os.Getenv("CLIENT_PASSWORD")
	config.Net, config.Addr = "tcp", os.Getenv("CLIENT_HOST")+":"+os.Getenv("CLIENT_PORT")
	config.DBName, config.Collation = schema, "utf8mb4_general_ci"
	config.InterpolateParams, config.MultiStatements, config.MaxAllowedPacket = interpolate, true, 64<<20
	if os.Getenv("CLIENT_TLS") == "on" {
		config.TLSConfig = "skip-verify"
	}
	if change != nil {
		change(config)
	}
	db, err := sql.Open("mysql", config.FormatDSN())
	must(err)
	return db
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(actual, expected interface{}) {
	if !reflect.DeepEqual(actual, expected) {
		panic(fmt.Sprintf("expected %.200v, got %.200v", expected, actual))
	}
}

// fails expects an error of the server; the driver does not keep its SQLSTATE.
func fails(code uint16, err error) {
	var failure *mysql.MySQLError
	if !errors.As(err, &failure) {
		panic(fmt.Sprintf("expected error %d, got %v", code, err))
	}
	expect(failure.Number, code)
}

type querier interface {
	QueryRowContext(context.Context, string, ...interface{}) *sql.Row
	QueryContext(context.Context, string, ...interface{}) (*sql.Rows, error)
	ExecContext(context.Context, string, ...interface{}) (sql.Result, error)
}

func text(q querier, query string, args ...interface{}) string {
	var value sql.NullString
	must(q.QueryRowContext(ctx, query, args...).Scan(&value))
	if !value.Valid {
		return "NULL"
	}
	return value.String
}

func exec(q querier, query string, args ...interface{}) sql.Result {
	result, err := q.ExecContext(ctx, query, args...)
	must(err)
	return result
}

func affected(result sql.Result) int64 {
	n, err := result.RowsAffected()
	must(err)
	return n
}

func count(q querier, name string) string {
	return text(q, "SELECT COUNT(*) FROM journeys WHERE name = ?", name)
}

// elsewhere counts on a connection that is opened for it.
func elsewhere(name string) string {
	other := open(true, nil)
	defer other.Close()
	return count(other, name)
}

func allBytes() []byte {
	bytes := make([]byte, 256)
	for n := range bytes {
		bytes[n] = byte(n)
	}
	return bytes
}

func checkValues(row *sql.Row) {
	var null, negative, positive, decimal sql.NullString
	var binary []byte
	var empty string
	must(row.Scan(&null, &negative, &positive, &decimal, &binary, &empty))
	expect(null.Valid, false)
	expect([]string{negative.String, positive.String, decimal.String, empty},
		[]string{"-9223372036854775808", "18446744073709551615", "-1234567890.0123456789", ""})
	expect(binary, allBytes())
}

func sumOf(q querier, query string, args ...interface{}) (rows int, sum int64) {
	result, err := q.QueryContext(ctx, query, args...)
	must(err)
	defer result.Close()
	for result.Next() {
		var n int64
		must(result.Scan(&n))
		rows, sum = rows+1, sum+n
	}
	must(result.Err())
	return
}

// results collects every row of every result as text.
func results(q querier, query string, args ...interface{}) (all []string) {
	rows, err := q.QueryContext(ctx, query, args...)
	must(err)
	defer rows.Close()
	for more := true; more; more = rows.NextResultSet() {
		columns, err := rows.Columns()
		must(err)
		for rows.Next() {
			values := make([]sql.NullString, len(columns))
			pointers := make([]interface{}, len(columns))
			for n := range values {
				pointers[n] = &values[n]
			}
			must(rows.Scan(pointers...))
			cells := []string{}
			for _, value := range values {
				cells = append(cells, value.String)
			}
			all = append(all, strings.Join(cells, ","))
		}
	}
	must(rows.Err())
	return
}

type promise struct {
	name string
	keep func(textual, prepared *sql.DB)
}

var promises = []promise{
	{"connect", func(textual, _ *sql.DB) { expect(text(textual, "SELECT 1 + 1"), "2") }},
	{"wrong-password", func(_, _ *sql.DB) {
		fails(1045, open(true, func(config *mysql.Config) { config.Passwd = "wrong" }).Ping())
	}},
	{"unknown-schema", func(_, _ *sql.DB) {
		fails(1049, open(true, func(config *mysql.Config) { config.DBName = schema + "_missing" }).Ping())
	}},
	{"ping", func(textual, _ *sql.DB) { must(textual.Ping()) }},
	{"values-text", func(textual, _ *sql.DB) {
		checkValues(textual.QueryRow(fmt.Sprintf("SELECT NULL, -9223372036854775808, 18446744073709551615,"+
			" CAST('-1234567890.0123456789' AS DECIMAL(20,10)), x'%x', ''", allBytes())))
	}},
	{"values-prepared", func(_, prepared *sql.DB) {
		checkValues(prepared.QueryRow("SELECT ?, -9223372036854775808, 18446744073709551615,"+
			" CAST(? AS DECIMAL(20,10)), CAST(? AS BINARY), ?", nil, "-1234567890.0123456789", allBytes(), ""))
	}},
	{"unicode", func(textual, prepared *sql.DB) {
		exec(prepared, "INSERT INTO journeys (name) VALUES (?)", unicode)
		// What another connection wrote is there for certain after a ping.
		must(textual.Ping())
		expect(text(textual, "SELECT name FROM journeys WHERE name = ?", unicode), unicode)
		expect(text(prepared, "SELECT name FROM journeys WHERE name = ?", unicode), unicode)
	}},
	{"prepared-reuse", func(_, prepared *sql.DB) {
		statement, err := prepared.Prepare("SELECT CAST(? AS SIGNED) * 2")
		must(err)
		defer statement.Close()
		for n := int64(0); n < 20; n++ {
			var double int64
			must(statement.QueryRow(n).Scan(&double))
			expect(double, 2*n)
		}
	}},
	{"last-insert-id", func(textual, _ *sql.DB) {
		id, err := exec(textual, "INSERT INTO journeys (name) VALUES ('id-1')").LastInsertId()
		must(err)
		expect(text(textual, "SELECT name FROM journeys WHERE id = ?", id), "id-1")
	}},
	{"affected-rows", func(textual, prepared *sql.DB) {
		expect(affected(exec(textual, "INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)")), int64(3))
		expect(affected(exec(prepared, "UPDATE journeys SET amount = ? WHERE name LIKE 'rows-%' AND amount = 1", 5)), int64(2))
		expect(affected(exec(textual, "DELETE FROM journeys WHERE name LIKE 'rows-%'")), int64(3))
	}},
	{"read-your-writes", func(textual, prepared *sql.DB) {
		for _, db := range []*sql.DB{textual, prepared} {
			conn, err := db.Conn(ctx)
			must(err)
			for n := 0; n < 50; n++ {
				name := fmt.Sprintf("ryw-%p-%d", db, n)
				exec(conn, "INSERT INTO journeys (name, amount) VALUES (?, ?)", name, n)
				expect(text(conn, "SELECT amount FROM journeys WHERE name = ?", name), fmt.Sprint(n))
			}
			must(conn.Close())
		}
	}},
	{"commit", func(textual, prepared *sql.DB) {
		transaction, err := prepared.Begin()
		must(err)
		exec(transaction, "INSERT INTO journeys (name) VALUES (?)", "commit-1")
		expect(elsewhere("commit-1"), "0")
		must(transaction.Commit())
		expect(elsewhere("commit-1"), "1")
		must(textual.Ping())
		reading, err := textual.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
		must(err)
		expect(count(reading, "commit-1"), "1")
		must(reading.Commit())
	}},
	{"rollback", func(textual, prepared *sql.DB) {
		transaction, err := prepared.Begin()
		must(err)
		exec(transaction, "INSERT INTO journeys (name) VALUES (?)", "rollback-1")
		expect(count(transaction, "rollback-1"), "1")
		must(transaction.Rollback())
		expect(count(textual, "rollback-1"), "0")
	}},
	{"autocommit-off", func(_, _ *sql.DB) {
		off := open(true, func(config *mysql.Config) { config.Params = map[string]string{"autocommit": "0"} })
		conn, err := off.Conn(ctx)
		must(err)
		exec(conn, "INSERT INTO journeys (name) VALUES ('off-1')")
		expect(elsewhere("off-1"), "0")
		exec(conn, "COMMIT")
		expect(elsewhere("off-1"), "1")
		must(conn.Close())
		must(off.Close())
	}},
	{"savepoint", func(textual, _ *sql.DB) {
		transaction, err := textual.Begin()
		must(err)
		exec(transaction, "INSERT INTO journeys (name) VALUES ('save-1')")
		exec(transaction, "SAVEPOINT a")
		exec(transaction, "INSERT INTO journeys (name) VALUES ('save-2')")
		exec(transaction, "ROLLBACK TO SAVEPOINT a")
		must(transaction.Commit())
		expect(results(textual, "SELECT name FROM journeys WHERE name LIKE 'save-%'"), []string{"save-1"})
	}},
	{"error-syntax", func(textual, _ *sql.DB) {
		_, err := textual.Exec("SELEC 1")
		fails(1064, err)
		expect(text(textual, "SELECT 1"), "1")
	}},
	{"error-duplicate", func(textual, _ *sql.DB) {
		exec(textual, "INSERT INTO journeys (name) VALUES ('twice')")
		_, err := textual.Exec("INSERT INTO journeys (name) VALUES ('twice')")
		fails(1062, err)
		expect(count(textual, "twice"), "1")
	}},
	{"error-prepared", func(_, prepared *sql.DB) {
		_, err := prepared.Query("SELECT * FROM missing WHERE id = ?", 1)
		fails(1146, err)
		expect(text(prepared, "SELECT ?", 1), "1")
	}},
	{"many-rows", func(textual, prepared *sql.DB) {
		for _, db := range []*sql.DB{textual, prepared} {
			rows, sum := sumOf(db, hundredThousand+" WHERE ? = 1", 1)
			expect([]int64{int64(rows), sum}, []int64{100_000, 4_999_950_000})
		}
	}},
	{"large-row", func(textual, prepared *sql.DB) {
		block := make([]byte, 1<<20)
		_, err := rand.Read(block)
		must(err)
		payload := bytes.Repeat(block, large>>20)
		digest := fmt.Sprintf("%x", sha256.Sum256(payload))
		for _, db := range []*sql.DB{textual, prepared} {
			exec(db, "INSERT INTO journeys (name, payload) VALUES (?, ?)", "large", payload)
			expect(text(db, "SELECT SHA2(payload, 256) FROM journeys WHERE name = ?", "large"), digest)
			var back []byte
			must(db.QueryRow("SELECT payload FROM journeys WHERE name = ?", "large").Scan(&back))
			expect(fmt.Sprintf("%x", sha256.Sum256(back)), digest)
			exec(db, "DELETE FROM journeys WHERE name = 'large'")
		}
	}},
	{"local-infile", func(textual, _ *sql.DB) {
		file := os.Getenv("CLIENT_INFILE")
		mysql.RegisterLocalFile(file)
		exec(textual, "CREATE TABLE platforms (n INT PRIMARY KEY, t VARCHAR(100) CHARACTER SET utf8mb4)")
		load := "LOAD DATA LOCAL INFILE '" + file + "' INTO TABLE platforms CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' (n, t)"
		expect(affected(exec(textual, load)), int64(1000))
		expect(text(textual, "SELECT SUM(n) FROM platforms"), "500500")
	}},
	{"call", func(textual, prepared *sql.DB) {
		expect(results(textual, "CALL two_results(7)"), []string{"7", "8,x"})
		expect(results(prepared, "CALL two_results(?)", 7), []string{"7", "8,x"})
		expect(text(textual, "SELECT 1"), "1")
	}},
	{"multi-statements", func(textual, _ *sql.DB) {
		expect(results(textual, "SELECT 1; INSERT INTO journeys (name) VALUES ('multi'); SELECT 2"), []string{"1", "2"})
		expect(count(textual, "multi"), "1")
	}},
	{"warnings", func(textual, _ *sql.DB) {
		conn, err := textual.Conn(ctx)
		must(err)
		text(conn, "SELECT CAST('1x' AS SIGNED)")
		expect(strings.Split(results(conn, "SHOW WARNINGS")[0], ",")[1], "1292")
		must(conn.Close())
	}},
	{"session-state", func(textual, _ *sql.DB) {
		conn, err := textual.Conn(ctx)
		must(err)
		exec(conn, "SET @stay = 'put'")
		exec(conn, "SET SESSION sql_mode = 'ANSI_QUOTES'")
		exec(conn, "CREATE TEMPORARY TABLE passengers (n INT)")
		exec(conn, "INSERT INTO passengers VALUES (1), (2)")
		for n := 0; n < 5; n++ {
			expect(text(conn, "SELECT @stay"), "put")
			expect(text(conn, "SELECT @@session.sql_mode"), "ANSI_QUOTES")
			expect(text(conn, "SELECT COUNT(\"n\") FROM passengers"), "2")
		}
		exec(conn, "DROP TEMPORARY TABLE passengers")
		// The connection is not for the pool again: this ends it.
		_ = conn.Raw(func(interface{}) error { return driver.ErrBadConn })
	}},
	{"schema-switch", func(textual, _ *sql.DB) {
		conn, err := textual.Conn(ctx)
		must(err)
		exec(conn, "CREATE DATABASE "+schema+"_other")
		exec(conn, "USE "+schema+"_other")
		exec(conn, "CREATE TABLE here (n INT)")
		expect(text(conn, "SELECT DATABASE()"), schema+"_other")
		expect(results(conn, "SELECT * FROM here"), []string(nil))
		exec(conn, "USE "+schema)
		expect(count(conn, "nothing"), "0")
		exec(conn, "DROP DATABASE "+schema+"_other")
		must(conn.Close())
	}},
	{"kill", func(textual, _ *sql.DB) {
		conn, err := textual.Conn(ctx)
		must(err)
		id := text(conn, "SELECT CONNECTION_ID()")
		killed := make(chan error, 1)
		go func() {
			rows, err := conn.QueryContext(ctx, "SELECT COUNT(*) FROM ("+hundredThousand+") x JOIN ("+hundredThousand+") y ON x.n > y.n + SLEEP(0)")
			if err == nil {
				for rows.Next() {
				}
				err = rows.Err()
			}
			killed <- err
		}()
		time.Sleep(300 * time.Millisecond)
		exec(textual, "KILL QUERY "+id)
		fails(1317, <-killed)
		expect(text(conn, "SELECT 5"), "5")
		must(conn.Close())
	}},
	{"pool", func(_, _ *sql.DB) {
		pool := open(true, nil)
		pool.SetMaxOpenConns(4)
		pool.SetMaxIdleConns(2)
		pool.SetConnMaxLifetime(200 * time.Millisecond)
		var group sync.WaitGroup
		failures := make(chan interface{}, 50)
		for n := 0; n < 50; n++ {
			group.Add(1)
			go func(n int) {
				defer group.Done()
				defer func() {
					if failure := recover(); failure != nil {
						failures <- failure
					}
				}()
				expect(text(pool, "SELECT ? + SLEEP(0.02)", n), fmt.Sprint(n))
			}(n)
		}
		group.Wait()
		select {
		case failure := <-failures:
			panic(failure)
		default:
		}
		must(pool.Close())
	}},
}

func keep(promise promise, textual, prepared *sql.DB) {
	defer func() {
		if failure := recover(); failure != nil {
			fmt.Printf("not ok %s: %s\n", promise.name, strings.ReplaceAll(fmt.Sprint(failure), "\n", " "))
		}
	}()
	promise.keep(textual, prepared)
	fmt.Printf("ok %s\n", promise.name)
}

func main() {
	fmt.Printf("# go-sql-driver %s\n", version)
	textual, prepared := open(true, nil), open(false, nil)
	exec(textual, "CREATE TABLE journeys (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"+
		" name VARCHAR(100) CHARACTER SET utf8mb4 UNIQUE, amount BIGINT, payload LONGBLOB) ENGINE=InnoDB")
	exec(textual, "CREATE PROCEDURE two_results(IN n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second, 'x' AS third; END")
	for _, promise := range promises {
		keep(promise, textual, prepared)
	}
	fmt.Println("done")
}
