// One connection: frames in and out, requests and their replies. What calls mean is index.js' business.
import net from "node:net"

/** The daemon refused, or is not there. `code` is a stable word to branch on, `hint` the next thing to type. */
export class PoolError extends Error {
  constructor(code, message, { hint = "", retryable = false, retryAt = null, account = null, details = null, rpcCode = -32000 } = {}) {
    super(message)
    this.name = "PoolError"
    Object.assign(this, { code, hint, retryable, retryAt, account, details, rpcCode })
  }
}

const WORDS = { "-32800": "cancelled", "-32601": "not_found", "-32602": "bad_request", "-32600": "bad_request", "-32700": "bad_request" }

export function errorOf({ code: rpcCode, message, data }) {
  const found = data ?? { code: WORDS[rpcCode] ?? "internal" }
  return new PoolError(rpcCode === -32800 ? "cancelled" : found.code, message, {
    hint: found.hint, retryable: found.retryable, retryAt: found.retry_at, account: found.account, details: found.details, rpcCode,
  })
}

export function lost() {
  return new PoolError("connection_lost", "the daemon closed the connection", {
    hint: "try again; `gemini-pool status` tells", retryable: true,
  })
}

export class Connection {
  #socket
  #pieces = []
  #size = 0
  #body = -1 // bytes of the body that is awaited, -1 while it is a header
  #lastId = 0
  #asked = new Map()

  /** `onNotice(method, params)` gets every notification, `onEnd()` the connection's end. */
  constructor(socket, { onNotice, onEnd }) {
    this.#socket = socket
    this.onNotice = onNotice
    this.onEnd = onEnd
    this.open = true
    this.draining = false
    socket.on("data", (data) => this.#feed(data))
    // Bun tells of an end that "close" does not always follow.
    for (const event of ["end", "error", "close"])
      socket.on(event, () => {
        this.#ended(lost())
        socket.destroy()
      })
    socket.unref() // an idle client keeps no process alive
  }

  static connect(path) {
    return new Promise((resolve, reject) => {
      const socket = net.connect(path)
      socket.once("connect", () => (socket.off("error", reject), resolve(socket)))
      socket.once("error", reject)
    })
  }

  /** Send a request: its id, and a promise of its result. */
  request(method, params) {
    const id = ++this.#lastId
    const reply = new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }))
    reply.catch(() => {}) // whoever awaits it hears of it
    this.#socket.ref()
    this.#write({ jsonrpc: "2.0", id, method, params: params ?? {} })
    return { id, reply }
  }

  cancel(id) {
    if (this.#asked.has(id)) this.#write({ jsonrpc: "2.0", method: "$/cancelRequest", params: { id } })
  }

  close() {
    this.#socket.end()
    this.#ended(lost())
  }

  #write(message) {
    const text = JSON.stringify(message)
    this.#socket.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`)
  }

  #feed(data) {
    this.#pieces.push(data)
    this.#size += data.length
    for (;;) {
      if (this.#body >= 0) {
        if (this.#size < this.#body) return
        const text = this.#take(this.#body).toString("utf8")
        this.#body = -1
        try {
          this.#receive(JSON.parse(text))
        } catch (error) {
          this.#broken(`the daemon sent what is no message: ${error.message}`)
          return
        }
      } else {
        const held = this.#join()
        const end = held.indexOf("\r\n\r\n")
        if (end < 0) return
        const length = /^content-length: *(\d+)$/im.exec(this.#take(end + 4).toString("latin1"))
        if (!length) return this.#broken("this socket is not the daemon's: it sent no Content-Length")
        this.#body = Number(length[1])
      }
    }
  }

  #join() {
    if (this.#pieces.length > 1) this.#pieces = [Buffer.concat(this.#pieces)]
    return this.#pieces[0] ?? Buffer.alloc(0)
  }

  #take(count) {
    const held = this.#join()
    this.#pieces = held.length > count ? [held.subarray(count)] : []
    this.#size = held.length - count
    return held.subarray(0, count)
  }

  #receive(message) {
    if (message.method !== undefined) {
      if (message.method === "daemon/draining" && !message.params?.kept) this.draining = true
      this.onNotice(message.method, message.params)
    } else if (message.id === null && message.error) {
      this.#ended(errorOf(message.error)) // a frame of ours that it could not read
      this.#socket.destroy()
    } else {
      const asked = this.#asked.get(message.id)
      this.#asked.delete(message.id)
      if (this.#asked.size === 0) this.#socket.unref()
      if (message.error) asked?.reject(errorOf(message.error))
      else asked?.resolve(message.result)
    }
  }

  #broken(text) {
    this.#ended(new PoolError("protocol", text))
    this.#socket.destroy()
  }

  #ended(error) {
    if (!this.open) return
    this.open = false
    for (const { reject } of this.#asked.values()) reject(error)
    this.#asked.clear()
    this.onEnd(error)
  }
}
