const mysql = require('mysql2/promise')
const { run, options, TLS } = require('./promises')

const all = {
  ...options, multipleStatements: true, supportBigNumbers: true, bigNumberStrings: false, ssl: TLS ? { rejectUnauthorized: false } : undefined,
  charset: 'utf8mb4_general_ci'
}

run({
  name: 'mysql2',
  version: require('mysql2/package.json').version,
  connect: more => mysql.createConnection({ ...all, ...more }),
  end: c => c.end(),
  encrypted: c => c.connection.stream.encrypted === true,
  ping: c => c.ping(),
  query: async (c, sql, args) => (await c.query(sql, args))[0],
  execute: async (c, sql, args) => (await c.execute(sql, args))[0],
  begin: c => c.beginTransaction(),
  commit: c => c.commit(),
  rollback: c => c.rollback(),
  loadFile: async (c, sql, stream) => (await c.query({ sql, infileStreamFactory: stream }))[0],
  stream: (c, sql) => c.connection.query(sql).stream(),
  changeUser: (c, user) => c.changeUser(user),
  reset: c => c.reset(),
  pool: () => mysql.createPool({ ...all, connectionLimit: 4 }),
  // It hands a connection on with the state that its last user left.
  poolResets: false,
  poolQuery: async (pool, sql, args) => (await pool.execute(sql, args))[0]
})
