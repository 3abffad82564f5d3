// postgres.js: everything prepared, everything in a pipeline.
'use strict'

const { pipeline: stream } = require('node:stream/promises')
const { Readable } = require('node:stream')
const postgres = require('postgres')
const j = require('./judge')

// `require` is TLS without verification, as in libpq.
const config = { ssl: j.TLS ? 'require' : false, onnotice: () => {} }
const connect = (more) => postgres({ ...config, ...more })

async function main() {
  // One connection, so that temporary tables stay in reach.
  const sql = connect({ max: 1 })
  const row = async (query) => Object.values((await query)[0])

  await j.run({
    async login() {
      j.same(await row(sql`select current_user, current_database(), 6 * 7 as n`), [j.ROLE, j.DATABASE, 42])
    },

    async parameters() {
      const when = new Date('2024-02-29T12:30:01.005Z')
      const json = { ü: [1, null] }
      j.same(
        await row(sql`select ${-42}::int a, ${'9007199254740993'}::int8 b,
          ${'12345678901234567890.123456789'}::numeric c, ${0.1}::float8 d, ${true}::bool e, ${j.TEXT}::text f,
          ${null}::text g, ${when}::timestamptz h, ${'00000000-0000-0000-0000-000000000007'}::uuid i,
          ${[1, 2, 3]}::int[] j, ${j.BYTES}::bytea k, ${sql.json(json)}::jsonb l`),
        [-42, '9007199254740993', '12345678901234567890.123456789', 0.1, true, j.TEXT, null, when,
          '00000000-0000-0000-0000-000000000007', [1, 2, 3], j.BYTES, json],
      )
      j.same(await row(sql`select md5(${j.BIG}), ${j.BIG}::text as big`), [j.BIG_MD5, j.BIG])
    },

    async prepared() {
      let total = 0
      for (let i = 1; i <= 10; i++) total += (await row(sql`select ${i}::int * 7 * ${i}::int as n`))[0]
      j.same(total, 385 * 7)
      j.same(await row(sql`select count(*)::int from pg_prepared_statements where statement like '%* 7 *%'
        and statement not like '%pg_prepared%'`), [1], 'statements at the server')
    },

    async pipeline() {
      const asked = Array.from({ length: 200 }, (_, i) => sql`select ${i}::int + 1 as n`)
      const answers = (await Promise.all(asked)).map((rows) => rows[0].n)
      j.same(answers, Array.from({ length: 200 }, (_, i) => i + 1))
    },

    async pool() {
      const pool = connect({ max: 8 })
      const asked = Array.from({ length: 40 }, (_, i) => pool`select ${i + 1}::int * ${i + 1}::int as n`)
      j.same((await Promise.all(asked)).reduce((sum, rows) => sum + rows[0].n, 0), 22140)
      await pool.end()
    },

    async copy() {
      // A connection of its own: after a COPY to the client the driver sometimes leaves it paused
      // (postgres.js 3.4.9, at a plain server, too), so that it hears no more.
      const other = connect({ max: 1 })
      await other`create temp table c (id int, t text)`
      await stream(Readable.from([j.LINES]), await other`copy c from stdin`.writable())
      j.same(await row(other.unsafe(j.copyCheck('c'))), [j.LINES_MD5], 'the table')
      const parts = []
      for await (const part of await other`copy (select * from c order by id) to stdout`.readable()) parts.push(part)
      j.same(j.md5(...parts), j.LINES_MD5, 'what came back')
      await other.end({ timeout: 1 })
    },

    async cursor() {
      let total = 0
      for await (const rows of sql`select generate_series(1, 1000) as n`.cursor(100)) {
        for (const { n } of rows) total += n
      }
      j.same(total, 500500)
    },

    async listen() {
      const ears = connect()
      let hear
      const heard = new Promise((resolve) => (hear = resolve))
      await ears.listen('news', hear)
      await sql.notify('news', 'Grüße')
      j.same(await j.soon(heard, 'the notification'), 'Grüße')
      await ears.end()
    },

    async 'large object'() {
      const object = await sql.largeObject()
      await object.write(j.OBJECT)
      await object.seek(0)
      const [{ data }] = await object.read(j.OBJECT.length)
      await object.close()
      j.same(data.equals(j.OBJECT), true, 'the object being whole')
    },

    async cancel() {
      const [pid] = await row(sql`select pg_backend_pid() as pid`)
      const query = sql.unsafe(j.SLEEP)
      const sleeping = j.failure(query.execute())
      const other = connect({ max: 1 })
      await j.waitUntil(async () => (await other.unsafe(j.asleep(pid)))[0].asleep)
      query.cancel()
      j.same((await j.soon(sleeping)).code, j.CANCELLED)
      j.same(await row(sql`select pg_backend_pid() as pid`), [pid], 'the process')
      await other.end()
    },

    async error() {
      await sql`create temp table e (i int primary key)`
      const error = await j.failure(sql.begin(async (sql) => {
        await sql`insert into e values (1)`
        j.same((await j.failure(sql`select 1 / 0`)).code, '22012')
        await sql`select 1`
      }))
      j.same(error.code, '22012')
      await sql.begin(async (sql) => {
        await sql`insert into e values (1)`
        const error = await j.failure(sql.savepoint((sql) => sql`insert into e values (1)`))
        j.same([error.code, error.constraint_name], ['23505', 'e_pkey'])
        await sql`insert into e values (2)`
      })
      j.same(await row(sql`select count(*)::int as n, sum(i)::int as s from e`), [2, 3])
    },
  })
  await sql.end()
}

main()
