// What the Node programs of the matrix share: the values, and how a step is reported.
//
// Where to connect comes from PGHOST, PGPORT, PGUSER, PGDATABASE and PGSSLMODE; JUDGE_ROLE is the
// role that the server must have logged in. There is no password anywhere.
'use strict'

const crypto = require('node:crypto')

const env = process.env
const md5 = (...parts) => {
  const hash = crypto.createHash('md5')
  for (const part of parts) hash.update(part)
  return hash.digest('hex')
}

const BIG = 'äbcdefg🐘'.repeat(125_000)
const ROWS = 100_000
const LINES = Array.from({ length: ROWS }, (_, i) => `${i + 1}\trow ${i + 1} äöü\n`).join('')
const OBJECT = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) % 251))
const PATIENCE = 30_000

class Skip extends Error {}

function same(found, expected, what = 'the answer') {
  const plain = (value) => JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))
  const [a, b] = [plain(found), plain(expected)]
  if (a !== b) throw new Error(`${what} is ${brief(a)}, not ${brief(b)}`)
}

const brief = (text) => (String(text).length < 300 ? text : `${text.slice(0, 300)}…`)

// Rejects instead of waiting for ever.
function soon(promise, what = 'the answer') {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come in time`)), PATIENCE)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

async function waitUntil(look) {
  const deadline = Date.now() + PATIENCE
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error('did not come true in time')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

// The error that a promise ends with.
const failure = (promise) =>
  promise.then(
    () => {
      throw new Error('it went well')
    },
    (error) => error,
  )

async function run(steps) {
  for (const [name, step] of Object.entries(steps)) {
    try {
      const remark = await soon(step(), 'its end')
      console.log(`ok ${name}${remark ? ` (${remark})` : ''}`)
    } catch (error) {
      if (error instanceof Skip) {
        console.log(`skip ${name} (${error.message})`)
        continue
      }
      console.error(error)
      console.log(`FAIL ${name}: ${error.message}`)
      process.exit(1)
    }
  }
}

module.exports = {
  HOST: env.PGHOST,
  PORT: Number(env.PGPORT),
  DATABASE: env.PGDATABASE,
  USER: env.PGUSER,
  TLS: env.PGSSLMODE !== 'disable',
  // For a connection string that node-postgres reads: its other modes with TLS verify the certificate.
  NO_VERIFY: env.PGSSLMODE === 'disable' ? '' : '?sslmode=no-verify',
  ROLE: env.JUDGE_ROLE,
  TEXT: 'Grüße, 世界 🐘 \'quoted\' \\ "twice"\ttab\nline',
  BIG,
  BIG_MD5: md5(BIG),
  BYTES: Buffer.from(Array.from({ length: 256 }, (_, i) => i)),
  LINES,
  LINES_MD5: md5(LINES),
  copyCheck: (table) => `select md5(string_agg(id || E'\\t' || t || E'\\n', '' order by id)) as md5 from ${table}`,
  OBJECT,
  SLEEP: 'select pg_sleep(60)',
  CANCELLED: '57014',
  asleep: (pid) =>
    `select exists (select from pg_stat_activity where pid = ${pid} and state = 'active' and wait_event = 'PgSleep') as asleep`,
  Skip,
  failure,
  md5,
  run,
  same,
  soon,
  waitUntil,
}
