// Kysely, over node-postgres.
'use strict'

const { Pool } = require('pg')
const Cursor = require('pg-cursor')
const { Kysely, PostgresDialect, sql } = require('kysely')
const j = require('./judge')

async function main() {
  const ssl = j.TLS ? { rejectUnauthorized: false } : false
  const pool = new Pool({ host: j.HOST, port: j.PORT, database: j.DATABASE, ssl, max: 5 })
  const db = new Kysely({ dialect: new PostgresDialect({ pool, cursor: Cursor }) })
  const values = { name: j.TEXT, price: '12345678901234567890.123456789', seen: new Date('2024-02-29T12:30:01.005Z'),
    data: j.BYTES, more: { ü: [1, null] } }
  const count = async () => (await db.selectFrom('kysely_item').select(({ fn }) => fn.countAll().as('n')).executeTakeFirst()).n

  await j.run({
    async login() {
      const { rows } = await sql`select current_user, current_database(), 6 * 7 as n`.execute(db)
      j.same(Object.values(rows[0]), [j.ROLE, j.DATABASE, 42])
    },

    async schema() {
      await db.schema.dropTable('kysely_item').ifExists().execute()
      await db.schema.createTable('kysely_item')
        .addColumn('id', 'serial', (c) => c.primaryKey())
        .addColumn('name', 'text', (c) => c.notNull().unique())
        .addColumn('price', 'numeric(30, 9)')
        .addColumn('seen', 'timestamptz')
        .addColumn('data', 'bytea')
        .addColumn('more', 'jsonb')
        .execute()
      const tables = await db.introspection.getTables()
      const [{ columns }] = tables.filter(({ name }) => name === 'kysely_item')
      j.same(columns.map(({ name }) => name), ['id', 'name', 'price', 'seen', 'data', 'more'])
    },

    async parameters() {
      await db.insertInto('kysely_item').values(values).execute()
      await db.insertInto('kysely_item').values({ name: 'nothing' }).execute()
      const { id, ...found } = await db.selectFrom('kysely_item').selectAll().where('name', '=', j.TEXT).executeTakeFirst()
      j.same([id, found], [1, values])
      const { rows } = await sql`select md5(${j.BIG}), ${j.BIG}::text as big`.execute(db)
      j.same(Object.values(rows[0]), [j.BIG_MD5, j.BIG])
    },

    async batch() {
      const rows = Array.from({ length: 1000 }, (_, i) => ({ name: `n${i}`, price: i }))
      await db.insertInto('kysely_item').values(rows).execute()
      const { total } = await db.selectFrom('kysely_item').select(sql`sum(price)::int`.as('total'))
        .where('name', '~', '^n[0-9]').executeTakeFirst()
      j.same(total, 499500)
      const squares = Array.from({ length: 40 }, (_, i) => sql`select ${i + 1}::int * ${i + 1}::int as n`.execute(db))
      j.same((await Promise.all(squares)).reduce((sum, { rows: [{ n }] }) => sum + n, 0), 22140)
    },

    async stream() {
      let seen = 0
      for await (const row of db.selectFrom('kysely_item').select('id').stream(100)) seen += row.id ? 1 : 0
      j.same(seen, 1002)
    },

    async error() {
      const failed = await j.failure(db.transaction().execute(async (tx) => {
        await tx.deleteFrom('kysely_item').execute()
        await sql`select 1 / 0`.execute(tx)
      }))
      j.same(failed.code, '22012')
      j.same(await count(), '1002')
      const twice = await j.failure(db.insertInto('kysely_item').values({ name: j.TEXT }).execute())
      j.same([twice.code, twice.constraint], ['23505', 'kysely_item_name_key'])
      const tx = await db.startTransaction().setIsolationLevel('serializable').execute()
      await tx.insertInto('kysely_item').values({ name: 'after' }).execute()
      const point = await tx.savepoint('s').execute()
      await j.failure(point.insertInto('kysely_item').values({ name: 'after' }).execute())
      const back = await point.rollbackToSavepoint('s').execute()
      await back.insertInto('kysely_item').values({ name: 'after all' }).execute()
      await tx.commit().execute()
      j.same(await count(), '1004')
    },

    async close() {
      await db.schema.dropTable('kysely_item').execute()
      await db.destroy()
    },
  })
}

main()
