# frozen_string_literal: true

# The mysql2 gem.
require 'mysql2'
require 'digest'
require 'securerandom'

SCHEMA = ENV.fetch('CLIENT_SCHEMA')
TLS = ENV.fetch('CLIENT_TLS') == 'on'
INFILE = ENV.fetch('CLIENT_INFILE')
UNICODE = 'Weiche 鉄道 🚂 ünï'
BYTES = (0..255).to_a.pack('C*')
DIGITS = "(SELECT 0 d #{(1..9).map { |n| "UNION ALL SELECT #{n}" }.join(' ')})"
HUNDRED_THOUSAND = 'SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM ' +
                   ('a'..'e').map { |name| "#{DIGITS} #{name}" }.join(', ')

def expect(actual, expected)
  raise "expected #{expected.inspect[0, 200]}, got #{actual.inspect[0, 200]}" unless actual == expected
end

# Linked with MariaDB's library the gem knows no ssl_mode; naming a cipher turns TLS on.
def connect(**options)
  Mysql2::Client.new({
    host: ENV.fetch('CLIENT_HOST'), port: ENV.fetch('CLIENT_PORT').to_i, username: ENV.fetch('CLIENT_USER'),
    password: ENV.fetch('CLIENT_PASSWORD'), database: SCHEMA, encoding: 'utf8mb4', local_infile: true,
    flags: Mysql2::Client::MULTI_STATEMENTS
  }.merge(TLS ? { sslcipher: 'DEFAULT' } : {}).merge(options))
end

def fails(code, sqlstate)
  yield
rescue Mysql2::Error => e
  expect([e.error_number, e.sql_state], [code, sqlstate])
else
  raise "expected error #{code}, got none"
end

def rows(client, sql)
  client.query(sql, as: :array).to_a
end

def value(client, sql)
  rows(client, sql)[0][0]
end

def execute(client, sql, *args)
  statement = client.prepare(sql)
  result = statement.execute(*args, as: :array)
  result ? result.to_a : statement.affected_rows
ensure
  statement&.close
end

def count(client, name)
  value(client, "SELECT COUNT(*) FROM journeys WHERE name = '#{name}'")
end

def elsewhere(**options)
  other = connect(**options)
  yield other
ensure
  other&.close
end

VALUES = [nil, -(1 << 63), (1 << 64) - 1, BigDecimal('-1234567890.0123456789'), BYTES, ''].freeze

PROMISES = {
  'connect' => lambda { |c|
    expect(value(c, 'SELECT 1 + 1'), 2)
    expect(c.ssl_cipher.to_s.empty?, false) if TLS
  },
  'wrong-password' => ->(_) { fails(1045, '28000') { connect(password: 'wrong') } },
  'unknown-schema' => ->(_) { fails(1049, '42000') { connect(database: "#{SCHEMA}_missing") } },
  'ping' => ->(c) { expect(c.ping, true) },
  'values-text' => lambda { |c|
    expect(rows(c, "SELECT NULL, -9223372036854775808, 18446744073709551615, CAST('-1234567890.0123456789' AS DECIMAL(20,10)), " \
                   "x'#{BYTES.unpack1('H*')}', ''")[0], VALUES)
  },
  'values-prepared' => lambda { |c|
    expect(execute(c, 'SELECT ?, -9223372036854775808, 18446744073709551615, CAST(? AS DECIMAL(20,10)), CAST(? AS BINARY), ?',
                   nil, '-1234567890.0123456789', BYTES, '')[0], VALUES)
  },
  'unicode' => lambda { |c|
    execute(c, 'INSERT INTO journeys (name) VALUES (?)', UNICODE)
    expect(value(c, "SELECT name FROM journeys WHERE name = '#{UNICODE}'"), UNICODE)
    expect(execute(c, 'SELECT name FROM journeys WHERE name = ?', UNICODE), [[UNICODE]])
  },
  'prepared-reuse' => lambda { |c|
    statement = c.prepare('SELECT CAST(? AS SIGNED) * 2 AS n')
    20.times { |n| expect(statement.execute(n).to_a, [{ 'n' => 2 * n }]) }
    statement.close
  },
  'last-insert-id' => lambda { |c|
    c.query("INSERT INTO journeys (name) VALUES ('id-1')")
    id = c.last_id
    expect(value(c, 'SELECT LAST_INSERT_ID()'), id)
    expect(value(c, "SELECT name FROM journeys WHERE id = #{id}"), 'id-1')
  },
  'affected-rows' => lambda { |c|
    c.query("INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)")
    expect(c.affected_rows, 3)
    expect(execute(c, "UPDATE journeys SET amount = ? WHERE name LIKE 'rows-%' AND amount = 1", 5), 2)
    c.query("DELETE FROM journeys WHERE name LIKE 'rows-%'")
    expect(c.affected_rows, 3)
  },
  'read-your-writes' => lambda { |c|
    50.times do |n|
      execute(c, 'INSERT INTO journeys (name, amount) VALUES (?, ?)', "ryw-#{n}", n)
      expect(rows(c, "SELECT amount FROM journeys WHERE name = 'ryw-#{n}'"), [[n]])
    end
  },
  'commit' => lambda { |c|
    c.query('START TRANSACTION')
    c.query("INSERT INTO journeys (name) VALUES ('commit-1')")
    elsewhere { |other| expect(count(other, 'commit-1'), 0) }
    c.query('COMMIT')
    elsewhere { |other| expect(count(other, 'commit-1'), 1) }
  },
  'rollback' => lambda { |c|
    c.query('BEGIN')
    c.query("INSERT INTO journeys (name) VALUES ('rollback-1')")
    expect(count(c, 'rollback-1'), 1)
    c.query('ROLLBACK')
    expect(count(c, 'rollback-1'), 0)
  },
  'autocommit-off' => lambda { |c|
    elsewhere do |other|
      other.query('SET autocommit = 0')
      other.query("INSERT INTO journeys (name) VALUES ('off-1')")
      expect(count(c, 'off-1'), 0)
      other.query('COMMIT')
      elsewhere { |third| expect(count(third, 'off-1'), 1) }
    end
  },
  'savepoint' => lambda { |c|
    ['BEGIN', "INSERT INTO journeys (name) VALUES ('save-1')", 'SAVEPOINT a', "INSERT INTO journeys (name) VALUES ('save-2')",
     'ROLLBACK TO SAVEPOINT a', 'COMMIT'].each { |sql| c.query(sql) }
    expect(rows(c, "SELECT name FROM journeys WHERE name LIKE 'save-%'"), [['save-1']])
  },
  'error-syntax' => lambda { |c|
    fails(1064, '42000') { c.query('SELEC 1') }
    expect(value(c, 'SELECT 1'), 1)
  },
  'error-duplicate' => lambda { |c|
    c.query("INSERT INTO journeys (name) VALUES ('twice')")
    fails(1062, '23000') { c.query("INSERT INTO journeys (name) VALUES ('twice')") }
    expect(count(c, 'twice'), 1)
  },
  'error-prepared' => lambda { |c|
    fails(1146, '42S02') { execute(c, 'SELECT * FROM missing WHERE id = ?', 1) }
    expect(value(c, 'SELECT 1'), 1)
  },
  'many-rows' => ->(c) { expect(rows(c, HUNDRED_THOUSAND).sum { |row| row[0] }, 4_999_950_000) },
  'large-row' => lambda { |c|
    payload = SecureRandom.bytes(1 << 20) * 17
    digest = Digest::SHA256.hexdigest(payload)
    execute(c, "INSERT INTO journeys (name, payload) VALUES ('large', ?)", payload)
    expect(value(c, "SELECT SHA2(payload, 256) FROM journeys WHERE name = 'large'"), digest)
    expect(Digest::SHA256.hexdigest(value(c, "SELECT payload FROM journeys WHERE name = 'large'")), digest)
    expect(Digest::SHA256.hexdigest(execute(c, 'SELECT payload FROM journeys WHERE name = ?', 'large')[0][0]), digest)
    c.query("DELETE FROM journeys WHERE name = 'large'")
  },
  'local-infile' => lambda { |c|
    c.query('CREATE TABLE platforms (n INT PRIMARY KEY, t VARCHAR(100) CHARACTER SET utf8mb4)')
    c.query("LOAD DATA LOCAL INFILE '#{INFILE}' INTO TABLE platforms CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' (n, t)")
    expect(c.affected_rows, 1000)
    expect(rows(c, 'SELECT COUNT(*), SUM(n) FROM platforms'), [[1000, 500_500]])
  },
  'call' => lambda { |c|
    expect(c.query('CALL two_results(7)', as: :array).to_a, [[7]])
    expect(c.next_result, true)
    expect(c.store_result.to_a(&:values).map { |row| row.is_a?(Hash) ? row.values : row }, [[8, 'x']])
    c.abandon_results!
    expect(value(c, 'SELECT 1'), 1)
  },
  'multi-statements' => lambda { |c|
    answers = c.query("SELECT 1; INSERT INTO journeys (name) VALUES ('multi'); SELECT 2", as: :array).to_a
    answers += c.store_result.to_a.map { |row| row.is_a?(Hash) ? row.values : row } while c.next_result
    expect(answers, [[1], [2]])
    expect(count(c, 'multi'), 1)
  },
  'warnings' => lambda { |c|
    c.query("SELECT CAST('1x' AS SIGNED)").to_a
    expect(c.warning_count, 1)
    expect(rows(c, 'SHOW WARNINGS')[0][1], 1292)
  },
  'session-state' => lambda { |c|
    c.query("SET @stay = 'put'")
    c.query("SET SESSION sql_mode = 'ANSI_QUOTES'")
    c.query('CREATE TEMPORARY TABLE passengers (n INT)')
    c.query('INSERT INTO passengers VALUES (1), (2)')
    5.times do
      expect(value(c, 'SELECT @stay'), 'put')
      expect(value(c, 'SELECT @@session.sql_mode'), 'ANSI_QUOTES')
      expect(value(c, 'SELECT COUNT("n") FROM passengers'), 2)
    end
    c.query('DROP TEMPORARY TABLE passengers')
    c.query('SET SESSION sql_mode = DEFAULT')
  },
  'schema-switch' => lambda { |c|
    c.query("CREATE DATABASE #{SCHEMA}_other")
    c.select_db("#{SCHEMA}_other")
    c.query('CREATE TABLE here (n INT)')
    expect(value(c, 'SELECT DATABASE()'), "#{SCHEMA}_other")
    expect(rows(c, 'SELECT * FROM here'), [])
    c.select_db(SCHEMA)
    expect(count(c, 'nothing'), 0)
    c.query("DROP DATABASE #{SCHEMA}_other")
  },
  'cursor' => lambda { |c|
    sum = 0
    c.query(HUNDRED_THOUSAND, as: :array, stream: true, cache_rows: false).each { |row| sum += row[0] }
    expect(sum, 4_999_950_000)
  },
  'compression' => lambda { |_|
    elsewhere(flags: Mysql2::Client::COMPRESS) do |other|
      expect(value(other, "SELECT REPEAT('a', 1000000)").size, 1_000_000)
      expect(rows(other, HUNDRED_THOUSAND).size, 100_000)
    end
  },
  'kill' => lambda { |c|
    elsewhere do |other|
      id = value(other, 'SELECT CONNECTION_ID()')
      expect(other.thread_id, id)
      killed = Thread.new do
        fails(1317, '70100') { other.query("SELECT COUNT(*) FROM (#{HUNDRED_THOUSAND}) x JOIN (#{HUNDRED_THOUSAND}) y ON x.n > y.n + SLEEP(0)") }
      end
      killed.report_on_exception = false
      sleep 0.3
      c.query("KILL QUERY #{id}")
      killed.join
      expect(value(other, 'SELECT 5'), 5)
    end
  },
  'pool' => lambda { |_|
    # Active Record's check at checkout is ping; its `reset!` is ROLLBACK and the session's SETs again.
    elsewhere do |other|
      10.times do |n|
        expect(other.ping, true)
        other.query("SET @@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483, @@SESSION.sql_mode = 'STRICT_ALL_TABLES'")
        other.query('BEGIN')
        other.query("INSERT INTO journeys (name) VALUES ('pool-#{n}')")
        other.query('ROLLBACK')
        expect(count(other, "pool-#{n}"), 0)
      end
    end
  }
}.freeze

$stdout.sync = true
puts "# ruby-mysql2 #{Mysql2::VERSION}"
elsewhere do |setup|
  setup.query('CREATE TABLE journeys (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, ' \
              'name VARCHAR(100) CHARACTER SET utf8mb4 UNIQUE, amount BIGINT, payload LONGBLOB) ENGINE=InnoDB')
  setup.query("CREATE PROCEDURE two_results(IN n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second, 'x' AS third; END")
end
client = nil
PROMISES.each do |name, promise|
  client ||= connect
  promise.call(client)
  puts "ok #{name}"
rescue StandardError => e
  puts "not ok #{name}: #{e.class}: #{e.message} (#{e.backtrace[0]})".tr("\n", ' ')
  client = nil
end
puts 'done'
