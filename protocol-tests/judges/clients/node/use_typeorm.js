// TypeORM, over node-postgres.
'use strict'

require('reflect-metadata')
const { DataSource, EntitySchema } = require('typeorm')
const j = require('./judge')

const Item = new EntitySchema({
  name: 'typeorm_item',
  columns: {
    id: { type: Number, primary: true, generated: true },
    name: { type: 'text', unique: true },
    price: { type: 'numeric', precision: 30, scale: 9, nullable: true },
    seen: { type: 'timestamptz', nullable: true },
    data: { type: 'bytea', nullable: true },
    more: { type: 'jsonb', nullable: true },
  },
})

async function main() {
  const db = new DataSource({
    type: 'postgres',
    host: j.HOST,
    port: j.PORT,
    username: j.USER,
    database: j.DATABASE,
    ssl: j.TLS ? { rejectUnauthorized: false } : false,
    entities: [Item],
    synchronize: true,
    installExtensions: false,
  })

  await j.run({
    async login() {
      await db.initialize()
      const [row] = await db.query('select current_user, current_database(), 6 * 7 as n')
      j.same(Object.values(row), [j.ROLE, j.DATABASE, 42])
    },

    async parameters() {
      const items = db.getRepository(Item)
      const values = { name: j.TEXT, price: '12345678901234567890.123456789', seen: new Date('2024-02-29T12:30:01.005Z'),
        data: j.BYTES, more: { ü: [1, null] } }
      await items.save({ ...values })
      await items.save({ name: 'nothing' })
      const { name, price, seen, data, more } = await items.findOneBy({ name: j.TEXT })
      j.same({ name, price, seen, data, more }, values)
      const [row] = await db.query('select md5($1), $1::text as big', [j.BIG])
      j.same(Object.values(row), [j.BIG_MD5, j.BIG])
    },

    async batch() {
      await db.getRepository(Item).insert(Array.from({ length: 1000 }, (_, i) => ({ name: `n${i}`, price: i })))
      const { sum } = await db.createQueryBuilder(Item, 'i').select('sum(i.price)::int', 'sum')
        .where("i.name like 'n%' and i.name <> 'nothing'").getRawOne()
      j.same(sum, 499500)
    },

    async stream() {
      let seen = 0
      const [first] = await db.getRepository(Item).find({ order: { id: 'ASC' }, take: 1 })
      j.same(first.name, j.TEXT)
      for (const page of [0, 1, 2]) {
        seen += (await db.getRepository(Item).find({ order: { id: 'ASC' }, skip: page * 500, take: 500 })).length
      }
      j.same(seen, 1002)
    },

    async error() {
      const failed = await j.failure(db.transaction(async (manager) => {
        await manager.clear(Item)
        await manager.query('select 1 / 0')
      }))
      j.same(failed.code ?? failed.driverError.code, '22012')
      j.same(await db.getRepository(Item).count(), 1002)
      const twice = await j.failure(db.getRepository(Item).insert({ name: j.TEXT }))
      j.same(twice.driverError.code, '23505')
      await db.transaction(async (manager) => {
        await manager.insert(Item, { name: 'after' })
        // A transaction within a transaction is a savepoint.
        await j.failure(manager.transaction((inner) => inner.insert(Item, { name: 'after' })))
        await manager.insert(Item, { name: 'after all' })
      })
      j.same(await db.getRepository(Item).count(), 1004)
    },

    async close() {
      await db.dropDatabase()
      await db.destroy()
    },
  })
}

main()
