// Prints the variables of a .env file, one NAME=VALUE per line. The package dotenv and Node.js
// itself have to read the same.
'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const { parseEnv } = require('node:util')

const text = fs.readFileSync(process.argv[2], 'utf8')
const variables = require('dotenv').parse(text)
// Node.js 20.12 and later.
if (parseEnv) assert.deepStrictEqual({ ...parseEnv(text) }, variables)
for (const [name, value] of Object.entries(variables)) console.log(`${name}=${value}`)
