// node-postgres, with pg-copy-streams.
'use strict'

const { pipeline: stream } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { Client, Pool, Query } = require('pg')
const copy = require('pg-copy-streams')
const j = require('./judge')

// PGSSLMODE=require would have it verify the certificate too, unlike libpq.
const tls = j.TLS ? { rejectUnauthorized: false } : false
const config = (more) => ({ ssl: tls, ...more })

async function connect(more) {
  const client = new Client(config(more))
  await client.connect()
  return client
}

async function main() {
  const db = await connect()
  const row = async (sql, values) => Object.values((await db.query(sql, values)).rows[0])

  await j.run({
    async login() {
      j.same(await row('select current_user, current_database(), 6 * 7 as n'), [j.ROLE, j.DATABASE, 42])
      j.same(Boolean(db.connection.stream.encrypted), j.TLS, 'TLS')
    },

    async parameters() {
      const when = new Date('2024-02-29T12:30:01.005Z')
      const values = [-42, '9007199254740993', '12345678901234567890.123456789', 0.1, true, j.TEXT, null, when,
        '00000000-0000-0000-0000-000000000007', [1, null, 3], j.BYTES, { ü: [1, null] }]
      const kinds = 'int int8 numeric float8 bool text text timestamptz uuid int[] bytea jsonb'.split(' ')
      const list = kinds.map((kind, i) => `$${i + 1}::${kind} as v${i}`).join(', ')
      j.same(await row(`select ${list}`, values), values)
      j.same(await row('select md5($1), $1::text as big', [j.BIG]), [j.BIG_MD5, j.BIG])
    },

    async prepared() {
      let total = 0
      for (let i = 1; i <= 10; i++) {
        const answer = await db.query({ name: 'square', text: 'select $1::int * $1::int as n', values: [i] })
        total += answer.rows[0].n
      }
      j.same(total, 385)
      j.same(await row("select count(*)::int from pg_prepared_statements where name = 'square'"), [1])
    },

    async pipeline() {
      const piped = await connect({ pipeline: true })
      const asked = Array.from({ length: 200 }, (_, i) => piped.query('select $1::int + 1 as n', [i]))
      const answers = (await Promise.all(asked)).map((answer) => answer.rows[0].n)
      j.same(answers, Array.from({ length: 200 }, (_, i) => i + 1))
      await piped.end()
      const several = await db.query('select 1 as n; select 2 as n')
      j.same(several.map((answer) => answer.rows[0].n), [1, 2])
    },

    async pool() {
      const pool = new Pool(config({ max: 8 }))
      const asked = Array.from({ length: 40 }, (_, i) => pool.query('select $1::int * $1::int as n', [i + 1]))
      const total = (await Promise.all(asked)).reduce((sum, answer) => sum + answer.rows[0].n, 0)
      j.same(total, 22140)
      await pool.end()
    },

    async copy() {
      await db.query('create temp table c (id int, t text)')
      await stream(Readable.from([j.LINES]), db.query(copy.from('copy c from stdin')))
      j.same(await row(j.copyCheck('c')), [j.LINES_MD5], 'the table')
      const parts = []
      for await (const part of db.query(copy.to('copy (select * from c order by id) to stdout'))) parts.push(part)
      j.same(j.md5(...parts), j.LINES_MD5, 'what came back')
    },

    async listen() {
      const other = await connect()
      const heard = new Promise((resolve) => db.once('notification', resolve))
      await db.query('listen news')
      await other.query("select pg_notify('news', $1)", ['Grüße'])
      const { channel, payload, processId } = await j.soon(heard, 'the notification')
      j.same([channel, payload, processId], ['news', 'Grüße', other.processID])
      await db.query('unlisten news')
      await other.end()
    },

    async 'large object'() {
      const [oid] = await row('select lo_from_bytea(0, $1) as oid', [j.OBJECT])
      const [found] = await row('select lo_get($1) as data', [oid])
      j.same(found.equals(j.OBJECT), true, 'the object being whole')
      j.same(await row('select lo_unlink($1) as gone', [oid]), [1])
      return 'by SQL, the driver has none'
    },

    async cancel() {
      const [pid] = await row('select pg_backend_pid() as pid')
      const query = new Query(j.SLEEP)
      const sleeping = new Promise((resolve) => query.once('error', resolve))
      db.query(query)
      const other = await connect()
      await j.waitUntil(async () => (await other.query(j.asleep(pid))).rows[0].asleep)
      // It opens a connection of its own, always without TLS.
      new Client(config()).cancel(db, query)
      j.same((await j.soon(sleeping)).code, j.CANCELLED)
      j.same(await row('select pg_backend_pid() as pid'), [pid], 'the process')
      await other.end()
    },

    async error() {
      await db.query('create temp table e (i int primary key)')
      await db.query('begin')
      await db.query('insert into e values (1)')
      j.same((await j.failure(db.query('select 1 / 0'))).code, '22012')
      j.same((await j.failure(db.query('select $1::int', [1]))).code, '25P02')
      await db.query('rollback')
      await db.query('begin; insert into e values (1); savepoint s')
      const error = await j.failure(db.query('insert into e values ($1)', [1]))
      j.same([error.code, error.constraint], ['23505', 'e_pkey'])
      await db.query('rollback to s; insert into e values (2); commit')
      j.same(await row('select count(*)::int as n, sum(i)::int as s from e'), [2, 3])
    },

    async 'direct TLS'() {
      if (!j.TLS) throw new j.Skip('needs TLS')
      const other = await connect({ sslnegotiation: 'direct' })
      j.same((await other.query('select current_user as u')).rows[0].u, j.ROLE)
      await other.end()
    },
  })
  await db.end()
}

main()
