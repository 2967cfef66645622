const mariadb = require('mariadb')
const { run, options, MYSQL, Skip, TLS } = require('./promises')

const all = {
  ...options, multipleStatements: true, permitLocalInfile: true, ssl: TLS ? { rejectUnauthorized: false } : false, insertIdAsNumber: false,
  allowPublicKeyRetrieval: true, charset: 'utf8mb4', maxAllowedPacket: 64 << 20
}

run({
  name: 'mariadb',
  version: mariadb.version,
  connect: more => mariadb.createConnection({ ...all, ...more }),
  end: c => c.end(),
  // It refuses to connect without TLS when TLS is asked for, and does not tell afterwards.
  encrypted: () => true,
  ping: c => c.ping(),
  query: (c, sql, args) => c.query(sql, args),
  execute: (c, sql, args) => c.execute(sql, args),
  begin: c => c.beginTransaction(),
  commit: c => c.commit(),
  rollback: c => c.rollback(),
  loadFile: (c, sql) => c.query(sql),
  stream: (c, sql) => c.queryStream(sql),
  changeUser: (c, user) => {
    if (MYSQL) throw new Skip('the driver has no COM_CHANGE_USER for MySQL')
    return c.changeUser(user)
  },
  reset: c => c.reset(),
  pool: () => mariadb.createPool({ ...all, connectionLimit: 4, resetAfterUse: true }),
  // It resets connections of MariaDB only.
  poolResets: !MYSQL,
  poolQuery: (pool, sql, args) => pool.execute(sql, args)
})
