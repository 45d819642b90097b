// The client's side of a transcript, with @gemini-pool/client: `node player.mjs TRANSCRIPT SOCKET` (or bun).
// GEMINI_POOL_CLIENT names another copy of that client: the one that a plugin was installed with.
// Exit 0 when everything came as it stands there. The actions are told in client/conformance/README.md.
import { readFileSync } from "node:fs"

const { Pool } = await import(process.env.GEMINI_POOL_CLIENT ?? "../../client/typescript/index.js")
const [file, socket] = process.argv.slice(2)
const script = JSON.parse(readFileSync(file, "utf8"))
const bound = {}
const isName = (value) => typeof value === "string" && /^\$[a-z_][a-z0-9_]*$/.test(value)

function match(pattern, value, at = "$") {
  if (isName(pattern)) {
    if (!(pattern in bound)) bound[pattern] = value
    else if (JSON.stringify(bound[pattern]) !== JSON.stringify(value)) throw new Error(`${at}: ${pattern} was ${bound[pattern]}, now ${value}`)
  } else if (Array.isArray(pattern)) {
    if (!Array.isArray(value) || value.length !== pattern.length) throw new Error(`${at}: an array was expected`)
    pattern.forEach((wanted, index) => match(wanted, value[index], `${at}[${index}]`))
  } else if (pattern !== null && typeof pattern === "object") {
    for (const [key, wanted] of Object.entries(pattern)) {
      if (value?.[key] === undefined) throw new Error(`${at}.${key} is missing in ${JSON.stringify(value)}`)
      match(wanted, value[key], `${at}.${key}`)
    }
  } else if (pattern !== value) throw new Error(`${at}: ${JSON.stringify(pattern)} was expected, ${JSON.stringify(value)} came`)
}

function fill(pattern) {
  if (isName(pattern)) return (bound[pattern] ??= script.values[pattern.slice(1)])
  if (Array.isArray(pattern)) return pattern.map(fill)
  if (pattern !== null && typeof pattern === "object")
    return Object.fromEntries(Object.entries(pattern).map(([key, value]) => [key, fill(value)]))
  return pattern
}

async function judge(action, work) {
  let result
  try {
    result = await work
  } catch (error) {
    if (!action.error) throw error
    match(action.error, { ...error, message: error.message, retry_at: error.retryAt })
    if (!error.hint && action.error.hint) throw new Error("no hint")
    return
  }
  if (action.error) throw new Error(`${JSON.stringify(action)} succeeded`)
  if (action.result) match(action.result, result)
}

const absent = script.wire.some((step) => step.stage === "absent")
const pool = new Pool({ socket, name: "conformance", connectMs: absent ? 100 : 5000 })
let events

async function run(action) {
  if (action.together) await Promise.all(action.together.map(run))
  else if (action.subscribe) events = await pool.events(...action.subscribe)
  else if (action.event) match(action.event, (await events.next()).value)
  else if (action.stream) {
    const { model, request, ...options } = fill(action.stream)
    const stream = pool.stream(model, request, options)
    for (const wanted of action.chunks) match(wanted, (await stream.next()).value)
    if (action.cancel) return void (await stream.return())
    await judge(action, stream.next().then(({ value }) => value))
  } else await judge(action, pool.call(action.call, fill(action.params)))
}

for (const action of script.client) await run(action)
pool.close()
