// MikroORM, over Knex and node-postgres.
'use strict'

const { EntitySchema, MikroORM } = require('@mikro-orm/postgresql')
const j = require('./judge')

const Item = new EntitySchema({
  name: 'MikroItem',
  tableName: 'mikro_item',
  properties: {
    id: { type: 'number', primary: true },
    name: { type: 'text', unique: true },
    price: { type: 'decimal', precision: 30, scale: 9, nullable: true },
    seen: { type: 'datetime', nullable: true },
    data: { type: 'blob', nullable: true },
    more: { type: 'json', nullable: true },
  },
})

async function main() {
  let orm
  const values = { name: j.TEXT, price: '12345678901234567890.123456789', seen: new Date('2024-02-29T12:30:01.005Z'),
    data: j.BYTES, more: { ü: [1, null] } }
  // It does not read sslmode in a URL, but node-postgres reads PGSSLMODE, and verifies then.
  const driverOptions = j.TLS ? { connection: { ssl: { rejectUnauthorized: false } } } : {}
  const ask = (sql, args) => orm.em.getConnection().execute(sql, args)

  await j.run({
    async login() {
      orm = await MikroORM.init({
        entities: [Item],
        host: j.HOST,
        port: j.PORT,
        user: j.USER,
        dbName: j.DATABASE,
        driverOptions,
        allowGlobalContext: true,
        pool: { min: 0, max: 5 },
        logger: () => {},
      })
      const [row] = await ask('select current_user, current_database(), 6 * 7 as n')
      j.same(Object.values(row), [j.ROLE, j.DATABASE, 42])
      j.same(await orm.isConnected(), true)
    },

    async 'connection string'() {
      const byUrl = await MikroORM.init({ entities: [Item], clientUrl: `postgresql://db_user@${j.HOST}:${j.PORT}/${j.DATABASE}`,
        driverOptions, logger: () => {} })
      const [{ u }] = await byUrl.em.getConnection().execute('select current_user as u')
      j.same(u, j.ROLE)
      await byUrl.close()
    },

    async schema() {
      await orm.schema.dropSchema()
      await orm.schema.createSchema()
      j.same(await orm.schema.getUpdateSchemaSQL({ dropTables: false }), '')
    },

    async parameters() {
      orm.em.create(Item, { ...values })
      orm.em.create(Item, { name: 'nothing' })
      await orm.em.flush()
      orm.em.clear()
      const { name, price, seen, data, more } = await orm.em.findOneOrFail(Item, { name: j.TEXT })
      j.same({ name, price, seen, data: Buffer.from(data), more }, values)
      const [row] = await ask('select md5(?), ?::text as big', [j.BIG, j.BIG])
      j.same(Object.values(row), [j.BIG_MD5, j.BIG])
    },

    async batch() {
      await orm.em.insertMany(Item, Array.from({ length: 1000 }, (_, i) => ({ name: `n${i}`, price: String(i) })))
      const [{ total }] = await ask("select sum(price)::int as total from mikro_item where name ~ '^n[0-9]'")
      j.same(total, 499500)
      const squares = Array.from({ length: 40 }, (_, i) => ask('select ?::int * ?::int as n', [i + 1, i + 1]))
      j.same((await Promise.all(squares)).reduce((sum, [{ n }]) => sum + n, 0), 22140)
    },

    async error() {
      const failed = await j.failure(orm.em.transactional(async (em) => {
        await em.nativeDelete(Item, {})
        await em.execute('select 1 / 0')
      }))
      j.same(failed.code, '22012')
      j.same(await orm.em.count(Item), 1002)
      const twice = await j.failure(orm.em.insert(Item, { name: j.TEXT }))
      j.same([twice.name, twice.code], ['UniqueConstraintViolationException', '23505'])
      await orm.em.transactional(async (em) => {
        await em.insert(Item, { name: 'after' })
        // A transaction within a transaction is a savepoint.
        await j.failure(em.transactional((inner) => inner.insert(Item, { name: 'after' })))
        await em.insert(Item, { name: 'after all' })
      })
      j.same(await orm.em.count(Item), 1004)
    },

    async close() {
      await orm.schema.dropSchema()
      await orm.close()
    },
  })
}

main()
