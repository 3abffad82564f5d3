// Sequelize, over node-postgres.
'use strict'

const { DataTypes, QueryTypes, Sequelize, Transaction } = require('sequelize')
const j = require('./judge')

async function main() {
  const db = new Sequelize(j.DATABASE, j.USER, undefined, {
    dialect: 'postgres',
    host: j.HOST,
    port: j.PORT,
    logging: false,
    pool: { max: 5 },
    dialectOptions: j.TLS ? { ssl: { rejectUnauthorized: false } } : {},
  })
  const Item = db.define('sequelize_item', {
    name: { type: DataTypes.TEXT, unique: true },
    price: DataTypes.DECIMAL(30, 9),
    seen: DataTypes.DATE,
    data: DataTypes.BLOB,
    more: DataTypes.JSONB,
  })
  const Part = db.define('sequelize_part', { number: DataTypes.INTEGER })
  Item.hasMany(Part)
  Part.belongsTo(Item)
  const ask = (sql, bind) => db.query(sql, { bind, type: QueryTypes.SELECT })

  await j.run({
    async login() {
      await db.authenticate()
      const [row] = await ask('select current_user, current_database(), 6 * 7 as n')
      j.same(Object.values(row), [j.ROLE, j.DATABASE, 42])
    },

    async parameters() {
      await db.sync({ force: true })
      const values = { name: j.TEXT, price: '12345678901234567890.123456789', seen: new Date('2024-02-29T12:30:01.005Z'),
        data: j.BYTES, more: { ü: [1, null] } }
      await Item.create(values)
      await Item.create({ name: 'nothing' })
      const { name, price, seen, data, more } = await Item.findOne({ where: { name: j.TEXT } })
      j.same({ name, price, seen, data, more }, values)
      j.same(await Item.count({ where: { data: null } }), 1)
      const [row] = await ask('select md5($1), $1::text as big', [j.BIG])
      j.same(Object.values(row), [j.BIG_MD5, j.BIG])
    },

    async batch() {
      const item = await Item.findOne({ where: { name: j.TEXT } })
      await Part.bulkCreate(Array.from({ length: 1000 }, (_, number) => ({ number, sequelizeItemId: item.id })))
      j.same(await Part.sum('number'), 499500)
      const whole = await Item.findOne({ where: { name: j.TEXT }, include: Part })
      j.same(whole.sequelize_parts.length, 1000)
      const squares = Array.from({ length: 40 }, (_, i) => ask('select $1::int * $1::int as n', [i + 1]))
      j.same((await Promise.all(squares)).reduce((sum, [{ n }]) => sum + n, 0), 22140)
    },

    async error() {
      const isolationLevel = Transaction.ISOLATION_LEVELS.SERIALIZABLE
      const failed = await j.failure(db.transaction({ isolationLevel }, async (transaction) => {
        await Part.destroy({ where: {}, transaction })
        await db.query('select 1 / 0', { transaction })
      }))
      j.same(failed.original.code, '22012')
      j.same(await Part.count(), 1000)
      j.same((await j.failure(Item.create({ name: j.TEXT }))).name, 'SequelizeUniqueConstraintError')
      j.same((await Item.create({ name: 'after' })).name, 'after')
    },

    async close() {
      await db.drop()
      await db.close()
    },
  })
}

main()
