// Drizzle, over node-postgres.
'use strict'

const { Pool } = require('pg')
const { drizzle } = require('drizzle-orm/node-postgres')
const orm = require('drizzle-orm')
const { customType, jsonb, numeric, pgTable, serial, text, timestamp } = require('drizzle-orm/pg-core')
const j = require('./judge')

const { eq, like, sql } = orm
const bytea = customType({ dataType: () => 'bytea' })
const items = pgTable('drizzle_item', {
  id: serial('id').primaryKey(),
  name: text('name').notNull().unique(),
  price: numeric('price', { precision: 30, scale: 9 }),
  seen: timestamp('seen', { withTimezone: true }),
  data: bytea('data'),
  more: jsonb('more'),
})

// The error of the server is the cause of Drizzle's own.
const state = (error) => error.code ?? error.cause?.code

async function main() {
  const ssl = j.TLS ? { rejectUnauthorized: false } : false
  const pool = new Pool({ host: j.HOST, port: j.PORT, database: j.DATABASE, ssl, max: 5 })
  const db = drizzle(pool)
  const values = { name: j.TEXT, price: '12345678901234567890.123456789', seen: new Date('2024-02-29T12:30:01.005Z'),
    data: j.BYTES, more: { ü: [1, null] } }

  await j.run({
    async login() {
      const { rows } = await db.execute(sql`select current_user, current_database(), 6 * 7 as n`)
      j.same(Object.values(rows[0]), [j.ROLE, j.DATABASE, 42])
    },

    async 'connection string'() {
      // As its own examples have it: neither user nor password, and no pool that was made before.
      const byUrl = drizzle(`postgresql://${j.HOST}:${j.PORT}/${j.DATABASE}${j.NO_VERIFY}`)
      const { rows } = await byUrl.execute(sql`select current_user as u`)
      j.same(rows[0].u, j.ROLE)
      await byUrl.$client.end()
    },

    async parameters() {
      await db.execute(sql`drop table if exists drizzle_item`)
      await db.execute(sql`create table drizzle_item (id serial primary key, name text not null unique,
        price numeric(30, 9), seen timestamptz, data bytea, more jsonb)`)
      await db.insert(items).values([values, { name: 'nothing' }])
      const [{ id, ...found }] = await db.select().from(items).where(eq(items.name, j.TEXT))
      j.same([id, found], [1, values])
      const { rows } = await db.execute(sql`select md5(${j.BIG}), ${j.BIG}::text as big`)
      j.same(Object.values(rows[0]), [j.BIG_MD5, j.BIG])
    },

    async prepared() {
      const byName = db.select({ id: items.id }).from(items).where(eq(items.name, sql.placeholder('name'))).prepare('by_name')
      for (let i = 0; i < 10; i++) j.same(await byName.execute({ name: j.TEXT }), [{ id: 1 }])
      const { rows } = await db.execute(sql`select count(*)::int as n from pg_prepared_statements where name = 'by_name'`)
      j.same(rows[0].n, 1, 'statements at the server')
    },

    async batch() {
      await db.insert(items).values(Array.from({ length: 1000 }, (_, i) => ({ name: `n${i}`, price: String(i) })))
      const [{ total }] = await db.select({ total: sql`sum(price)::int` }).from(items).where(like(items.name, 'n%'))
      j.same(total, 499500)
      const squares = Array.from({ length: 40 }, (_, i) => db.execute(sql`select ${i + 1}::int * ${i + 1}::int as n`))
      j.same((await Promise.all(squares)).reduce((sum, { rows }) => sum + rows[0].n, 0), 22140)
    },

    async error() {
      const failed = await j.failure(db.transaction(async (tx) => {
        await tx.delete(items)
        await tx.execute(sql`select 1 / 0`)
      }))
      j.same(state(failed), '22012')
      j.same(await db.$count(items), 1002)
      j.same(state(await j.failure(db.insert(items).values({ name: j.TEXT }))), '23505')
      await db.transaction(async (tx) => {
        await tx.insert(items).values({ name: 'after' })
        // A transaction within a transaction is a savepoint.
        await j.failure(tx.transaction((inner) => inner.insert(items).values({ name: 'after' })))
        await tx.insert(items).values({ name: 'after all' })
      })
      j.same(await db.$count(items), 1004)
    },

    async close() {
      await db.execute(sql`drop table drizzle_item`)
      await pool.end()
    },
  })
}

main()
