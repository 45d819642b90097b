// `fetch` over the gateway's Unix socket, in Node and in Bun: for SDKs that take a fetch of one's own.
import http from "node:http"
import path from "node:path"
import { Readable } from "node:stream"
import { socketPath } from "./index.js"

export const BASE_URL = "http://localhost"

/** The gateway's Unix socket lies beside the daemon's, unless config.toml says otherwise (`daemon/info` tells). */
export const gatewaySocket = (env = process.env) => path.join(path.dirname(socketPath(env)), "gateway.sock")

/** A `fetch` whose every request goes to the gateway; of the URL only path and query count. */
export function gatewayFetch(socket = gatewaySocket()) {
  return async (input, init = {}) => {
    const request = new Request(input, init)
    const url = new URL(request.url)
    const target = BASE_URL + url.pathname + url.search
    const body = request.body === null ? undefined : Buffer.from(await request.arrayBuffer())
    const signal = init.signal ?? (input instanceof Request ? input.signal : undefined)
    if (process.versions.bun)
      return fetch(target, { method: request.method, headers: request.headers, body, signal, unix: socket, timeout: false })
    return overHttp(socket, request, url, body, signal)
  }
}

function overHttp(socketPath, { method, headers }, { pathname, search }, body, signal) {
  const given = { ...Object.fromEntries(headers), host: "localhost" }
  if (body) given["content-length"] = body.length
  return new Promise((resolve, reject) => {
    const sent = http.request({ socketPath, path: pathname + search, method, headers: given, signal }, (answer) => {
      const got = new Headers()
      for (const [name, value] of Object.entries(answer.headers)) for (const one of [value].flat()) got.append(name, one)
      const empty = [101, 204, 205, 304].includes(answer.statusCode)
      resolve(new Response(empty ? null : Readable.toWeb(answer), { status: answer.statusCode, statusText: answer.statusMessage, headers: got }))
    })
    // As fetch fails: a TypeError with its cause; an abort as itself.
    sent.on("error", (error) => reject(error.name === "AbortError" ? error : Object.assign(new TypeError("fetch failed"), { cause: error })))
    sent.end(body)
  })
}
