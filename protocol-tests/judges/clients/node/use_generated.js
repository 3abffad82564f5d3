// Every URL that pgiam generates, read and used by the parsers and drivers of Node.js.
// See python/use_generated.py for JUDGE_STRINGS.
'use strict'

const fs = require('node:fs')

const { JUDGE_STRINGS: file, JUDGE_ROLE, JUDGE_DATABASE, DATABASE_URL } = process.env
const cases = file
  ? fs.readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => line.split('\t'))
  : [['DATABASE_URL', JUDGE_ROLE, JUDGE_DATABASE, DATABASE_URL]]
if (file) for (const name of Object.keys(process.env)) if (name.startsWith('PG')) delete process.env[name]

const { Client } = require('pg')
const knex = require('knex')
const pgp = require('pg-promise')({ noWarnings: true })
const postgres = require('postgres')
const { Sequelize } = require('sequelize')
const { DataSource } = require('typeorm')

const who = 'select current_user::text as u, current_database()::text as d'
const both = ([{ u, d }]) => [u, d]
const quiet = { error() {}, warn() {}, debug() {}, deprecate() {} }

async function byPg(config) {
  const client = new Client(config)
  try {
    await client.connect()
    return both((await client.query(who)).rows)
  } finally {
    await client.end().catch(() => {})
  }
}

// decodeURI leaves what is reserved anywhere in a URL as it is.
const reserved = /%(3B|2F|3F|3A|40|26|3D|2B|24|2C|23)/i
const path = (url) => new URL(url).pathname
const pgCannot = (url) => reserved.test(path(url)) && 'it does not decode what is reserved in URLs'
const cannotDecode = (url) => path(url).includes('%') && 'it does not decode the database'

// How each connects, and why it cannot read some URLs, which it must then refuse.
const readers = {
  'node-postgres': [(url) => byPg({ connectionString: url }), pgCannot],
  'postgres.js': [
    async (url) => {
      const sql = postgres(url, { max: 1 })
      try {
        return both(await sql.unsafe(who))
      } finally {
        await sql.end({ timeout: 1 })
      }
    },
    cannotDecode,
  ],
  Sequelize: [
    async (url) => {
      const db = new Sequelize(url, { logging: false, retry: { max: 0 } })
      try {
        return both((await db.query(who))[0])
      } finally {
        await db.close()
      }
    },
    (url) => (/%3A/i.test(new URL(url).username) ? 'it takes a colon for the end of the user' : cannotDecode(url)),
  ],
  TypeORM: [
    async (url) => {
      const db = new DataSource({ type: 'postgres', url, installExtensions: false })
      await db.initialize()
      try {
        return both(await db.query(who))
      } finally {
        await db.destroy()
      }
    },
    pgCannot,
  ],
  'pg-promise': [
    async (url) => {
      const db = pgp(url)
      try {
        return both(await db.any(who))
      } finally {
        db.$pool.end()
      }
    },
    pgCannot,
  ],
  Knex: [
    async (url) => {
      const db = knex({ client: 'pg', connection: url, log: quiet })
      try {
        return both((await db.raw(who)).rows)
      } finally {
        await db.destroy()
      }
    },
    pgCannot,
  ],
}
// As programs do that take a URL apart by themselves.
readers['new URL()'] = [
  (text) => {
    const url = new URL(text)
    const database = decodeURIComponent(url.pathname.slice(1)) || undefined
    return byPg({ host: url.hostname, port: Number(url.port), user: decodeURIComponent(url.username), database })
  },
]

async function judge() {
  let failed = false
  for (const [name, role, database, url] of cases) {
    for (const [reader, [use, cannot]] of Object.entries(readers)) {
      const step = `${reader}, ${name}`
      const whyNot = cannot?.(url)
      try {
        const found = await use(url)
        const right = found[0] === role && found[1] === database && !whyNot
        console.log(right ? `ok ${step}` : `FAIL ${step}: ${url} is ${found}, not ${whyNot || [role, database]}`)
        failed ||= !right
      } catch (error) {
        console.log(whyNot ? `ok ${step} (${whyNot})` : `FAIL ${step}: ${url}: ${error.message}`)
        failed ||= !whyNot
      }
    }
  }
  process.exit(failed ? 1 : 0)
}

judge()
