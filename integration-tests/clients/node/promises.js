// The promises that both Node drivers keep. A driver is an object, see mysql2_client.js.
const crypto = require('node:crypto')
const fs = require('node:fs')

const env = process.env
const MYSQL = env.CLIENT_FLAVOUR === 'mysql'
const TLS = env.CLIENT_TLS === 'on'
const SCHEMA = env.CLIENT_SCHEMA
const UNICODE = 'Weiche 鉄道 🚂 ünï'
const LARGE = 17 << 20
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
const DIGITS = '(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL' +
  ' SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)'
const HUNDRED_THOUSAND = 'SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS n FROM ' +
  [...'abcde'].map(alias => `${DIGITS} ${alias}`).join(', ')
const options = {
  host: env.CLIENT_HOST, port: Number(env.CLIENT_PORT), user: env.CLIENT_USER, password: env.CLIENT_PASSWORD, database: SCHEMA
}

class Skip extends Error {}

const shown = value => {
  const text = JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)) ?? String(value)
  return text.length < 200 ? text : text.slice(0, 200) + '...'
}
const expect = (actual, expected) => {
  if (shown(actual) !== shown(expected)) throw new Error(`expected ${shown(expected)}, got ${shown(actual)}`)
}
const sha256 = bytes => crypto.createHash('sha256').update(bytes).digest('hex')
const first = rows => Object.values(rows[0])[0]

async function run (driver) {
  console.log(`# ${driver.name} ${driver.version}`)
  const setup = await driver.connect()
  await driver.query(setup, 'CREATE TABLE journeys (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,' +
    ' name VARCHAR(100) CHARACTER SET utf8mb4 UNIQUE, amount BIGINT, payload LONGBLOB) ENGINE=InnoDB')
  await driver.query(setup, 'CREATE PROCEDURE two_results(IN n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second; END')
  await driver.end(setup)
  let c
  for (const [name, promise] of Object.entries(promises(driver))) {
    try {
      c ??= await driver.connect()
      await promise(c)
      console.log(`ok ${name}`)
    } catch (error) {
      if (error instanceof Skip) {
        console.log(`skip ${name}: ${error.message}`)
      } else {
        console.log(`not ok ${name}: ${String(error.stack).replace(/\s+/g, ' ').slice(0, 600)}`)
        c = undefined
      }
    }
  }
  console.log('done')
  process.exit(0)
}

function promises (d) {
  const query = d.query
  const value = async (c, sql, args) => first(await query(c, sql, args))
  const count = (c, name) => value(c, 'SELECT CAST(COUNT(*) AS CHAR) FROM journeys WHERE name = ?', [name])
  const elsewhere = async action => {
    const other = await d.connect()
    try {
      return await action(other)
    } finally {
      await d.end(other)
    }
  }
  const fails = async (code, sqlstate, action) => {
    try {
      await action()
    } catch (error) {
      expect([error.errno, error.sqlState], [code, sqlstate])
      return
    }
    throw new Error(`expected error ${code}, got none`)
  }

  return {
    connect: async c => {
      expect(Number(await value(c, 'SELECT 1 + 1')), 2)
      if (TLS) expect(d.encrypted(c), true)
    },
    'wrong-password': () => fails(1045, '28000', () => d.connect({ password: 'wrong' })),
    'unknown-schema': () => fails(1049, '42000', () => d.connect({ database: SCHEMA + '_missing' })),
    ping: c => d.ping(c),
    'values-text': async c => {
      const row = Object.values((await query(c, `SELECT NULL AS a, -9223372036854775808 AS b, 18446744073709551615 AS c,
        CAST('-1234567890.0123456789' AS DECIMAL(20,10)) AS d, x'${BYTES.toString('hex')}' AS e, '' AS f`))[0])
      expect(row.map(v => (Buffer.isBuffer(v) ? v.toString('hex') : v === null ? v : String(v))),
        [null, '-9223372036854775808', '18446744073709551615', '-1234567890.0123456789', BYTES.toString('hex'), ''])
    },
    'values-prepared': async c => {
      const row = Object.values((await d.execute(c, `SELECT ? AS a, -9223372036854775808 AS b, 18446744073709551615 AS c,
        CAST(? AS DECIMAL(20,10)) AS d, CAST(? AS BINARY) AS e, ? AS f`, [null, '-1234567890.0123456789', BYTES, '']))[0])
      expect(row.map(v => (Buffer.isBuffer(v) ? v.toString('hex') : v === null ? v : String(v))),
        [null, '-9223372036854775808', '18446744073709551615', '-1234567890.0123456789', BYTES.toString('hex'), ''])
    },
    unicode: async c => {
      await query(c, 'INSERT INTO journeys (name) VALUES (?)', [UNICODE])
      expect(await value(c, 'SELECT name FROM journeys WHERE name = ?', [UNICODE]), UNICODE)
      expect(first(await d.execute(c, 'SELECT name FROM journeys WHERE name = ?', [UNICODE])), UNICODE)
    },
    'prepared-reuse': async c => {
      for (let n = 0; n < 20; n++) expect(Number(first(await d.execute(c, 'SELECT CAST(? AS SIGNED) * 2 AS n', [String(n)]))), 2 * n)
    },
    'last-insert-id': async c => {
      const id = (await query(c, "INSERT INTO journeys (name) VALUES ('id-1')")).insertId
      if (!(id > 0)) throw new Error(`expected an id, got ${id}`)
      expect(await value(c, 'SELECT CAST(LAST_INSERT_ID() AS CHAR)'), String(id))
      expect(await value(c, 'SELECT name FROM journeys WHERE id = ?', [id]), 'id-1')
    },
    'affected-rows': async c => {
      expect((await query(c, "INSERT INTO journeys (name, amount) VALUES ('rows-1', 1), ('rows-2', 1), ('rows-3', 2)")).affectedRows, 3)
      expect((await d.execute(c, "UPDATE journeys SET amount = ? WHERE name LIKE 'rows-%' AND amount = 1", [5])).affectedRows, 2)
      expect((await query(c, "DELETE FROM journeys WHERE name LIKE 'rows-%'")).affectedRows, 3)
    },
    'read-your-writes': async c => {
      for (let n = 0; n < 50; n++) {
        await query(c, 'INSERT INTO journeys (name, amount) VALUES (?, ?)', [`ryw-${n}`, n])
        const rows = n % 2
          ? await query(c, 'SELECT amount FROM journeys WHERE name = ?', [`ryw-${n}`])
          : await d.execute(c, 'SELECT amount FROM journeys WHERE name = ?', [`ryw-${n}`])
        expect(rows.map(row => Number(row.amount)), [n])
      }
    },
    commit: async c => {
      await d.begin(c)
      await query(c, "INSERT INTO journeys (name) VALUES ('commit-1')")
      expect(await elsewhere(other => count(other, 'commit-1')), '0')
      await d.commit(c)
      expect(await elsewhere(other => count(other, 'commit-1')), '1')
    },
    rollback: async c => {
      await d.begin(c)
      await query(c, "INSERT INTO journeys (name) VALUES ('rollback-1')")
      expect(await count(c, 'rollback-1'), '1')
      await d.rollback(c)
      expect(await count(c, 'rollback-1'), '0')
    },
    'autocommit-off': async c => {
      await elsewhere(async other => {
        await query(other, 'SET autocommit = 0')
        await query(other, "INSERT INTO journeys (name) VALUES ('off-1')")
        expect(await count(c, 'off-1'), '0')
        await query(other, 'COMMIT')
        expect(await elsewhere(third => count(third, 'off-1')), '1')
      })
    },
    savepoint: async c => {
      await d.begin(c)
      await query(c, "INSERT INTO journeys (name) VALUES ('save-1')")
      await query(c, 'SAVEPOINT a')
      await query(c, "INSERT INTO journeys (name) VALUES ('save-2')")
      await query(c, 'ROLLBACK TO SAVEPOINT a')
      await d.commit(c)
      expect((await query(c, "SELECT name FROM journeys WHERE name LIKE 'save-%'")).map(row => row.name), ['save-1'])
    },
    'error-syntax': async c => {
      await fails(1064, '42000', () => query(c, 'SELEC 1'))
      expect(Number(await value(c, 'SELECT 1')), 1)
    },
    'error-duplicate': async c => {
      await query(c, "INSERT INTO journeys (name) VALUES ('twice')")
      await fails(1062, '23000', () => query(c, "INSERT INTO journeys (name) VALUES ('twice')"))
      expect(await count(c, 'twice'), '1')
    },
    'error-prepared': async c => {
      await fails(1146, '42S02', () => d.execute(c, 'SELECT * FROM missing WHERE id = ?', [1]))
      expect(Number(await value(c, 'SELECT 1')), 1)
    },
    'many-rows': async c => {
      const rows = await query(c, HUNDRED_THOUSAND)
      expect(rows.reduce((sum, row) => sum + Number(row.n), 0), 4999950000)
    },
    'large-row': async c => {
      const payload = Buffer.concat(Array(LARGE >> 20).fill(crypto.randomBytes(1 << 20)))
      await d.execute(c, 'INSERT INTO journeys (name, payload) VALUES (?, ?)', ['large', payload])
      expect(await value(c, "SELECT SHA2(payload, 256) FROM journeys WHERE name = 'large'"), sha256(payload))
      expect(sha256(await value(c, "SELECT payload FROM journeys WHERE name = 'large'")), sha256(payload))
      expect(sha256(first(await d.execute(c, 'SELECT payload FROM journeys WHERE name = ?', ['large']))), sha256(payload))
      await query(c, 'UPDATE journeys SET payload = ? WHERE name = ?', [payload, 'large'])
      await query(c, "DELETE FROM journeys WHERE name = 'large'")
    },
    'local-infile': async c => {
      await query(c, 'CREATE TABLE platforms (n INT PRIMARY KEY, t VARCHAR(100) CHARACTER SET utf8mb4)')
      const sql = `LOAD DATA LOCAL INFILE '${env.CLIENT_INFILE}' INTO TABLE platforms CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' (n, t)`
      expect((await d.loadFile(c, sql, () => fs.createReadStream(env.CLIENT_INFILE))).affectedRows, 1000)
      expect(Number(await value(c, 'SELECT SUM(n) FROM platforms')), 500500)
    },
    call: async c => {
      const results = (await query(c, 'CALL two_results(7)')).filter(Array.isArray)
      expect(results.map(rows => Number(first(rows))), [7, 8])
      const prepared = (await d.execute(c, 'CALL two_results(?)', [7])).filter(Array.isArray)
      expect(prepared.map(rows => Number(first(rows))), [7, 8])
      expect(Number(await value(c, 'SELECT 1')), 1)
    },
    'multi-statements': async c => {
      const results = await query(c, "SELECT 1; INSERT INTO journeys (name) VALUES ('multi'); SELECT 2")
      expect(results.filter(Array.isArray).map(rows => Number(first(rows))), [1, 2])
      expect(await count(c, 'multi'), '1')
    },
    warnings: async c => {
      await query(c, "SELECT CAST('1x' AS SIGNED)")
      expect((await query(c, 'SHOW WARNINGS')).map(row => Number(row.Code)), [1292])
      const result = await query(c, "INSERT IGNORE INTO journeys (name, amount) VALUES ('warned', 'x')")
      expect([result.affectedRows, result.warningStatus], [1, 1])
    },
    'session-state': async c => {
      await query(c, "SET @stay = 'put'")
      await query(c, "SET SESSION sql_mode = 'ANSI_QUOTES'")
      await query(c, 'CREATE TEMPORARY TABLE passengers (n INT)')
      await query(c, 'INSERT INTO passengers VALUES (1), (2)')
      for (let n = 0; n < 5; n++) {
        expect(await value(c, 'SELECT @stay'), 'put')
        expect(await value(c, 'SELECT @@session.sql_mode'), 'ANSI_QUOTES')
        expect(Number(await value(c, 'SELECT COUNT("n") FROM passengers')), 2)
      }
      await query(c, 'DROP TEMPORARY TABLE passengers')
      await query(c, 'SET SESSION sql_mode = DEFAULT')
    },
    'schema-switch': async c => {
      await query(c, `CREATE DATABASE ${SCHEMA}_other`)
      await query(c, `USE ${SCHEMA}_other`)
      await query(c, 'CREATE TABLE here (n INT)')
      expect(await value(c, 'SELECT DATABASE()'), `${SCHEMA}_other`)
      expect((await d.execute(c, 'SELECT * FROM here')).length, 0)
      await query(c, `USE ${SCHEMA}`)
      expect(await count(c, 'nothing'), '0')
      await query(c, `DROP DATABASE ${SCHEMA}_other`)
    },
    cursor: async c => {
      let sum = 0
      for await (const row of d.stream(c, HUNDRED_THOUSAND)) sum += Number(row.n)
      expect(sum, 4999950000)
    },
    compression: async () => {
      const compressed = await d.connect({ compress: true })
      expect((await value(compressed, "SELECT REPEAT('a', 1000000)")).length, 1000000)
      expect((await query(compressed, HUNDRED_THOUSAND)).length, 100000)
      await d.end(compressed)
    },
    'change-user': () => elsewhere(async other => {
      await query(other, "SET @stay = 'put'")
      await d.changeUser(other, { user: options.user, password: options.password, database: SCHEMA })
      expect([await value(other, 'SELECT @stay'), await value(other, 'SELECT DATABASE()')], [null, SCHEMA])
    }),
    reset: () => elsewhere(async other => {
      await query(other, "SET @stay = 'put'")
      await d.reset(other)
      expect([await value(other, 'SELECT @stay'), await value(other, 'SELECT DATABASE()')], [null, SCHEMA])
    }),
    kill: c => elsewhere(async other => {
      const id = await value(other, 'SELECT CONNECTION_ID()')
      expect(Number(id), other.threadId)
      const killed = fails(1317, '70100', () => query(other, `SELECT COUNT(*) FROM (${HUNDRED_THOUSAND}) x JOIN (${HUNDRED_THOUSAND}) y ON x.n > y.n + SLEEP(0)`))
      await new Promise(resolve => setTimeout(resolve, 300))
      await query(c, `KILL QUERY ${id}`)
      await killed
      expect(Number(await value(other, 'SELECT 5')), 5)
    }),
    pool: async () => {
      const pool = d.pool()
      for (let n = 0; n < 20; n++) {
        const c = await pool.getConnection()
        if (d.poolResets) expect(await value(c, 'SELECT @stay'), null)
        await query(c, "SET @stay = 'put'")
        await d.ping(c)
        await c.release()
      }
      const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => d.poolQuery(pool, 'SELECT CAST(? AS SIGNED) AS n', [n])))
      expect(answers.map(rows => Number(rows[0].n)), [...Array(50).keys()])
      await pool.end()
    }
  }
}

module.exports = { run, options, TLS, MYSQL, Skip }
