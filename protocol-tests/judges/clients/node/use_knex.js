// Knex, over node-postgres.
'use strict'

const knex = require('knex')
const j = require('./judge')

async function main() {
  const ssl = j.TLS ? { rejectUnauthorized: false } : false
  const db = knex({ client: 'pg', connection: { host: j.HOST, port: j.PORT, database: j.DATABASE, ssl }, pool: { min: 0, max: 5 } })
  const values = { name: j.TEXT, price: '12345678901234567890.123456789', seen: new Date('2024-02-29T12:30:01.005Z'),
    data: j.BYTES, more: { ü: [1, null] } }

  await j.run({
    async login() {
      const { rows } = await db.raw('select current_user, current_database(), 6 * 7 as n')
      j.same(Object.values(rows[0]), [j.ROLE, j.DATABASE, 42])
    },

    async 'connection string'() {
      const byUrl = knex({ client: 'pg', connection: `postgresql://${j.HOST}:${j.PORT}/${j.DATABASE}${j.NO_VERIFY}` })
      const [{ u }] = await byUrl.select(db.raw('current_user as u'))
      j.same(u, j.ROLE)
      await byUrl.destroy()
    },

    async schema() {
      await db.schema.dropTableIfExists('knex_item')
      await db.schema.createTable('knex_item', (t) => {
        t.increments('id')
        t.text('name').notNullable().unique()
        t.decimal('price', 30, 9)
        t.timestamp('seen')
        t.binary('data')
        t.jsonb('more')
      })
      j.same(Object.keys(await db('knex_item').columnInfo()), ['id', 'name', 'price', 'seen', 'data', 'more'])
    },

    async parameters() {
      await db('knex_item').insert([values, { name: 'nothing' }])
      const { id, ...found } = await db('knex_item').where({ name: j.TEXT }).first()
      j.same([id, found], [1, values])
      const { rows } = await db.raw('select md5(?), ?::text as big', [j.BIG, j.BIG])
      j.same(Object.values(rows[0]), [j.BIG_MD5, j.BIG])
    },

    async batch() {
      await db.batchInsert('knex_item', Array.from({ length: 1000 }, (_, i) => ({ name: `n${i}`, price: i })), 100)
      const [{ total }] = await db('knex_item').where('name', '~', '^n[0-9]').select(db.raw('sum(price)::int as total'))
      j.same(total, 499500)
      const squares = Array.from({ length: 40 }, (_, i) => db.raw('select ?::int * ?::int as n', [i + 1, i + 1]))
      j.same((await Promise.all(squares)).reduce((sum, { rows }) => sum + rows[0].n, 0), 22140)
    },

    async cancel() {
      // With cancel, a timeout asks the server to end the query, on a connection of its own.
      const late = db.raw(j.SLEEP).timeout(500, { cancel: true })
      j.same((await j.failure(late)).name, 'KnexTimeoutError')
      const sleepers = "select count(*)::int as n from pg_stat_activity where wait_event = 'PgSleep'"
      await j.waitUntil(async () => (await db.raw(sleepers)).rows[0].n === 0)
    },

    async error() {
      const failed = await j.failure(db.transaction(async (tx) => {
        await tx('knex_item').delete()
        await tx.raw('select 1 / 0')
      }))
      j.same(failed.code, '22012')
      j.same((await db('knex_item').count('* as n'))[0].n, '1002')
      const twice = await j.failure(db('knex_item').insert({ name: j.TEXT }))
      j.same([twice.code, twice.constraint], ['23505', 'knex_item_name_unique'])
      await db.transaction(async (tx) => {
        await tx('knex_item').insert({ name: 'after' })
        // A transaction within a transaction is a savepoint.
        await j.failure(tx.transaction((inner) => inner('knex_item').insert({ name: 'after' })))
        await tx('knex_item').insert({ name: 'after all' })
      })
      j.same((await db('knex_item').count('* as n'))[0].n, '1004')
    },

    async close() {
      await db.schema.dropTable('knex_item')
      await db.destroy()
    },
  })
}

main()
