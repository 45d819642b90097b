// Client of the gemini-pool daemon, for Node and Bun. No dependencies. The protocol is told in client/README.md.
import { existsSync } from "node:fs"
import os from "node:os"
import path from "node:path"
import { Connection, PoolError, lost } from "./rpc.js"

export { PoolError }
export const VERSION = "0.1.0"

const RETRY_MS = 50
const CANCEL_MS = 2000
const ABSENT = new Set(["ENOENT", "ECONNREFUSED", "EAGAIN", "ECONNRESET"])
const HARMLESS = new Set([
  "initialize", "pool/token", "pool/status", "pool/quota", "pool/explain", "account/list", "daemon/info",
]) // asked again after a lost connection

/** Where the daemon listens, by the same rules as every client's. */
export function socketPath(env = process.env, platform = process.platform) {
  if (env.GEMINI_POOL_SOCKET) return path.resolve(env.GEMINI_POOL_SOCKET)
  const home = env.HOME || os.homedir()
  if (platform === "darwin") return path.join(home, "Library/Application Support/gemini-pool/run/pool.sock")
  if (env.XDG_RUNTIME_DIR?.startsWith("/")) return path.join(env.XDG_RUNTIME_DIR, "gemini-pool/pool.sock")
  const base = env.XDG_STATE_HOME?.startsWith("/") ? env.XDG_STATE_HOME : path.join(home, ".local/state")
  const state = env.GEMINI_POOL_STATE_DIR ? path.resolve(env.GEMINI_POOL_STATE_DIR) : path.join(base, "gemini-pool")
  return path.join(state, "run/pool.sock")
}

function notRunning(where, error) {
  const config = process.env.XDG_CONFIG_HOME || path.join(os.homedir(), ".config")
  const units = [path.join(config, "systemd/user"), "/etc/systemd/user", "/usr/lib/systemd/user"]
  const managed = units.some((folder) => existsSync(path.join(folder, "gemini-pool.service")))
  const hint = managed ? "start it with `systemctl --user start gemini-pool`" : "start it with `gemini-pool run`, or try `gemini-pool demo`"
  const text = ABSENT.has(error.code) ? `no daemon answers at ${where}` : `${where} cannot be reached: ${error.message}`
  return new PoolError("not_running", text, { hint, retryable: true })
}

const bodyOf = (request) =>
  typeof request === "string" ? { contents: [{ role: "user", parts: [{ text: request }] }] } : request
const pause = (ms) => new Promise((done) => setTimeout(done, ms))

/** The daemon. Nothing is sent before the first call; all calls share a connection and run concurrently on it. */
export class Pool {
  #connection = null // a promise of one
  #current = null
  #streams = new Map()
  #events = null
  #lastToken = 0

  constructor({ socket = socketPath(), name = "", connectMs = 2000 } = {}) {
    this.socket = socket
    this.name = name || path.basename(process.argv[1] ?? "") || "node"
    this.connectMs = connectMs
  }

  // ---- calls ----

  /** Any method by its name. `signal` cancels it in the daemon, too. */
  async call(method, params, { signal } = {}) {
    for (let repeated = false; ; repeated = true) {
      signal?.throwIfAborted()
      const connection = await this.#connected()
      const { id, reply } = connection.request(method, params)
      const abort = () => connection.cancel(id)
      signal?.addEventListener("abort", abort, { once: true })
      try {
        return await reply
      } catch (error) {
        const again = error.code === "shutting_down" || (error.code === "connection_lost" && HARMLESS.has(method))
        if (repeated || !again) throw error
        if (error.code === "shutting_down") connection.draining = true
      } finally {
        signal?.removeEventListener("abort", abort)
      }
    }
  }

  acquire(model, options = {}) { return this.call("pool/acquire", { model, ...options }) }
  report(lease, outcome = {}) { return this.call("pool/report", { lease: lease.lease ?? lease, ...outcome }) }
  renew(lease) { return this.call("pool/renew", { lease: lease.lease ?? lease }) }
  release(lease) { return this.call("pool/release", { lease: lease.lease ?? lease }) }
  token(choice = {}) { return this.call("pool/token", typeof choice === "string" ? { account: choice } : choice) }
  status() { return this.call("pool/status") }
  quota({ refresh = false } = {}) { return this.call("pool/quota", { refresh }) }
  explain(model, options = {}) { return this.call("pool/explain", { model, ...options }) }
  async accounts() { return (await this.call("account/list")).accounts }
  info() { return this.call("daemon/info") }
  /** Use an account before all others for what it can serve; `model`: a glob, empty: every model. */
  pin(account, model = "") { return this.call("account/pin", { account, model }) }
  unpin(account, model = "") { return this.call("account/unpin", { account, model }) }

  /** One answer. `request` is a prompt, or a body of the Gemini API. */
  generate(model, request, { signal, ...options } = {}) {
    return this.call("pool/generate", { model, request: bodyOf(request), ...options }, { signal })
  }

  /** The chunks of one answer as they come; its return value is the result. Leaving the loop cancels. */
  async *stream(model, request, { signal, ...options } = {}) {
    const params = { model, request: bodyOf(request), ...options, method: "streamGenerateContent" }
    for (let repeated = false; ; repeated = true) {
      signal?.throwIfAborted()
      const connection = await this.#connected()
      const token = `s${++this.#lastToken}`
      const queue = new Queue()
      this.#streams.set(token, queue)
      const { id, reply } = connection.request("pool/generate", { ...params, token })
      reply.then((result) => queue.end(null, result), (error) => queue.end(error))
      const abort = () => connection.cancel(id)
      signal?.addEventListener("abort", abort, { once: true })
      let fresh = true
      try {
        for (;;) {
          const { value, done } = await queue.next()
          if (done) return value
          fresh = false
          yield value
        }
      } catch (error) {
        if (repeated || !fresh || error.code !== "shutting_down") throw error
        connection.draining = true
      } finally {
        signal?.removeEventListener("abort", abort)
        this.#streams.delete(token)
        if (!queue.ended) {
          connection.cancel(id)
          await Promise.race([reply.catch(() => {}), pause(CANCEL_MS)])
        }
      }
    }
  }

  /** What happens in the pool, as it happens; ends only by leaving the loop, or with the connection. */
  async events(...kinds) {
    const queue = (this.#events = new Queue())
    await this.call("pool/subscribe", kinds.length ? { events: kinds } : {})
    return {
      next: () => queue.next(),
      return: async (value) => ((this.#events = null), queue.end(null), { value, done: true }),
      [Symbol.asyncIterator]() { return this },
    }
  }

  /** Take a lease, send with it, and report what came by itself. `send(lease)` gives a `Response`, or anything else;
   * it is called again with the next account's lease while the daemon says so. */
  async withLease(model, options, send) {
    let lease = await this.acquire(model, options)
    for (;;) {
      let answer
      try {
        answer = await send(lease)
      } catch (error) {
        const network = error instanceof TypeError || error.syscall !== undefined // how fetch and sockets fail
        if (!network) await this.release(lease).catch(() => {})
        else {
          const told = await this.report(lease, { error: String(error.cause ?? error) })
          if (told.lease) await this.release(told.lease).catch(() => {})
        }
        throw error
      }
      const outcome = { status: answer?.status }
      if (answer instanceof Response) {
        outcome.headers = Object.fromEntries(answer.headers)
        if (!answer.ok) outcome.body = await answer.clone().text()
      }
      const told = await this.report(lease, outcome)
      if (told.next !== "retry") return answer
      lease = told.lease ?? (await this.acquire(model, { ...options, request: lease.request }))
    }
  }

  /** End the connection; its leases are freed at once. The Pool may be used again. */
  close() {
    this.#current?.close()
    this.#current = this.#connection = null
  }

  // ---- the connection ----

  async #connected() {
    for (;;) {
      const current = await (this.#connection ??= this.#connect())
      if (current.open && !current.draining) return current
      if (this.#current === current) this.#current = this.#connection = null
    }
  }

  async #connect() {
    const giveUpAt = Date.now() + this.connectMs
    for (;;) {
      try {
        const socket = await Connection.connect(this.socket)
        return (this.#current = this.#greet(socket))
      } catch (error) {
        if (!ABSENT.has(error.code) || Date.now() >= giveUpAt) {
          this.#connection = null
          throw notRunning(this.socket, error)
        }
      }
      await pause(RETRY_MS)
    }
  }

  #greet(socket) {
    const connection = new Connection(socket, {
      onNotice: (method, params) => {
        if (method === "$/progress") this.#streams.get(params.token)?.push(params.value)
        else if (method === "pool/event") this.#events?.push(params)
      },
      onEnd: (error) => {
        if (this.#current === connection) this.#events?.end(error ?? lost())
      },
    })
    connection.request("initialize", { client: { name: this.name, version: VERSION } })
    return connection
  }
}

/** What came and was not read yet. */
class Queue {
  #values = []
  #wake = null
  #result
  ended = false

  push(value) { this.#values.push(value); this.#wake?.() }
  end(error, result) { this.ended = true; this.error ??= error; this.#result = result; this.#wake?.() }

  async next() {
    while (!this.#values.length && !this.ended) await new Promise((wake) => (this.#wake = wake))
    if (this.#values.length) return { value: this.#values.shift(), done: false }
    if (this.error) throw this.error
    return { value: this.#result, done: true }
  }
}
