// Prisma with its pg adapter, which is node-postgres: the client has no engine of its own.
'use strict'

const { PrismaPg } = require('@prisma/adapter-pg')
const { Prisma, PrismaClient } = require('judge-prisma-client')
const j = require('./judge')

async function main() {
  const ssl = j.TLS ? { rejectUnauthorized: false } : false
  const adapter = new PrismaPg({ host: j.HOST, port: j.PORT, database: j.DATABASE, ssl, max: 5 })
  const db = new PrismaClient({ adapter })
  const values = { name: j.TEXT, price: new Prisma.Decimal('12345678901234567890.123456789'),
    seen: new Date('2024-02-29T12:30:01.005Z'), data: Uint8Array.from(j.BYTES), more: { ü: [1, null] } }

  await j.run({
    async login() {
      const [row] = await db.$queryRaw`select current_user::text, current_database()::text, 6 * 7 as n`
      j.same(Object.values(row), [j.ROLE, j.DATABASE, 42])
    },

    async 'connection string'() {
      // As its own examples have it, here without a user.
      const connectionString = `postgresql://${j.HOST}:${j.PORT}/${j.DATABASE}${j.NO_VERIFY}`
      const byUrl = new PrismaClient({ adapter: new PrismaPg({ connectionString }) })
      const [{ u }] = await byUrl.$queryRaw`select current_user::text as u`
      j.same(u, j.ROLE)
      await byUrl.$disconnect()
    },

    async parameters() {
      await db.$executeRaw`drop table if exists prisma_item`
      await db.$executeRaw`create table prisma_item (id serial primary key, name text not null unique,
        price numeric(30, 9), seen timestamptz(6), data bytea, more jsonb)`
      await db.item.create({ data: values })
      await db.item.create({ data: { name: 'nothing' } })
      const { id, ...found } = await db.item.findUniqueOrThrow({ where: { name: j.TEXT } })
      j.same([id, found], [1, values])
      const [row] = await db.$queryRaw`select md5(${j.BIG}), ${j.BIG}::text as big`
      j.same(Object.values(row), [j.BIG_MD5, j.BIG])
    },

    async batch() {
      const rows = Array.from({ length: 1000 }, (_, i) => ({ name: `n${i}`, price: i }))
      j.same(await db.item.createMany({ data: rows }), { count: 1000 })
      const { _sum } = await db.item.aggregate({ _sum: { price: true }, where: { name: { startsWith: 'n' } } })
      j.same(_sum.price.toNumber(), 499500)
      const squares = Array.from({ length: 40 }, (_, i) => db.$queryRaw`select ${i + 1}::int * ${i + 1}::int as n`)
      j.same((await Promise.all(squares)).reduce((sum, [{ n }]) => sum + n, 0), 22140)
    },

    async error() {
      const failed = await j.failure(db.$transaction(async (tx) => {
        await tx.item.deleteMany()
        await tx.$queryRaw`select 1 / 0`
      }))
      // P2010: a raw query failed; the SQLSTATE is beside it.
      j.same([failed.code, failed.meta.driverAdapterError.cause.originalCode], ['P2010', '22012'])
      j.same(await db.item.count(), 1002)
      const twice = await j.failure(db.item.create({ data: { name: j.TEXT } }))
      j.same([twice.code, twice.meta.driverAdapterError.cause.originalCode], ['P2002', '23505'])
      const isolationLevel = Prisma.TransactionIsolationLevel.Serializable
      const [first, second] = [{ name: 'after' }, { name: 'after all' }].map((data) => db.item.create({ data }))
      await db.$transaction([first, second], { isolationLevel })
      j.same(await db.item.count(), 1004)
    },

    async close() {
      await db.$executeRaw`drop table prisma_item`
      await db.$disconnect()
    },
  })
}

main()
