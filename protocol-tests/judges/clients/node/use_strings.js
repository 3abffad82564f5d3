// The ways to connect of docs/clients.md, written as connection strings and settings.
// JUDGE_HUB is the port of all targets, JUDGE_SOCKETS the directory of the Unix sockets.
'use strict'

const { JUDGE_HUB: hub, JUDGE_SOCKETS: sockets } = process.env
const j = require('./judge')

// What is written has to do; the environment must not help.
for (const name of Object.keys(process.env)) if (name.startsWith('PG')) delete process.env[name]

const { Client } = require('pg')
const postgres = require('postgres')
const { Sequelize } = require('sequelize')
const { DataSource } = require('typeorm')

const who = 'select current_user::text as u, current_database()::text as d'
const check = ([{ u, d }]) => j.same([u, d], [j.ROLE, 'app'])

async function byPg(config) {
  const client = new Client(config)
  await client.connect()
  check((await client.query(who)).rows)
  await client.end()
}

async function byPostgres(...config) {
  const sql = postgres(...config)
  check(await sql.unsafe(who))
  await sql.end()
}

async function bySequelize(...config) {
  const db = new Sequelize(...config)
  check((await db.query(who))[0])
  await db.close()
}

async function byTypeorm(config) {
  const db = new DataSource({ type: 'postgres', ...config })
  await db.initialize()
  check(await db.query(who))
  await db.destroy()
}

const port = j.PORT
const url = `postgresql://localhost:${port}/app`
const ofHub = `postgresql://localhost:${hub}/orders/app`
const quiet = { dialect: 'postgres', logging: false }

j.run({
  'pg, URL': () => byPg({ connectionString: url }),
  'pg, URL with TLS': () => byPg({ connectionString: `${url}?sslmode=no-verify` }),
  'pg, URL with TLS as libpq has it': () => byPg({ connectionString: `${url}?sslmode=require&uselibpqcompat=true` }),
  'pg, URL of the hub': () => byPg({ connectionString: ofHub }),
  'pg, settings': () => byPg({ host: 'localhost', port, database: 'app' }),
  'pg, the socket': () => byPg({ host: sockets, port, database: 'app' }),
  'pg, the socket as URL': () => byPg({ connectionString: `postgresql:///app?host=${sockets}&port=${port}` }),
  async 'pg, a certificate that it does not know'() {
    const error = await j.failure(byPg({ connectionString: url, ssl: true }))
    j.same(error.code, 'DEPTH_ZERO_SELF_SIGNED_CERT')
  },
  'postgres.js, URL': () => byPostgres(url),
  'postgres.js, URL of the hub': () => byPostgres(ofHub),
  'postgres.js, settings': () => byPostgres({ host: 'localhost', port, database: 'app', ssl: 'require' }),
  'postgres.js, the socket': () => byPostgres({ host: sockets, port, database: 'app' }),
  'Sequelize, URL': () => bySequelize(`postgres://db_user@localhost:${port}/app`, quiet),
  'Sequelize, the hub': () => bySequelize('orders/app', 'db_user', undefined, { ...quiet, host: 'localhost', port: hub }),
  'Sequelize, the socket': () => bySequelize('app', 'db_user', undefined, { ...quiet, host: sockets, port }),
  'TypeORM, settings': () => byTypeorm({ host: 'localhost', port, database: 'app', username: 'db_user' }),
  'TypeORM, the hub': () => byTypeorm({ host: 'localhost', port: Number(hub), database: 'orders/app', username: 'db_user' }),
  'TypeORM, the socket': () => byTypeorm({ host: sockets, port, database: 'app', username: 'db_user' }),
})
