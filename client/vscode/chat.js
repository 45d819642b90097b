// Gemini for an editor's chat, without VS Code: the models there are, and an answer with tools as it comes.
// @ts-check
import { BASE_URL, gatewayFetch } from "../typescript/gateway.js"
/** @typedef {import("../typescript/index.js").Pool} Pool */
/** @typedef {{ text: string } | { call: { id: string, name: string, args: object } } | { result: { id: string, text: string } }} Part */
/** @typedef {{ role: "user" | "model", parts: Part[] }} Message */
/** @typedef {{ name: string, description: string, inputSchema?: object }} Tool */

const UNKNOWN = "skip_thought_signature_validator" // what Google takes instead of a signature that is lost
const KEPT = 1000
/** A thought's signature goes back to Google with its call, but an editor hands back the call alone.
 * @type {Map<string, string | undefined>} */
const signatures = new Map()
let lastCall = 0

/** The models that accounts of the pool have and that chat.
 * @param {Pool} pool */
export async function models(pool) {
  const { gateway_socket } = await pool.info()
  const answer = await gatewayFetch(gateway_socket)(`${BASE_URL}/v1beta/models?pageSize=1000`)
  const body = /** @type {any} */ (await answer.json())
  if (!answer.ok) throw new Error(body.error?.message ?? `the gateway answered ${answer.status}`)
  return body.models
    .filter((/** @type {any} */ model) => (model.supportedGenerationMethods ?? ["generateContent"]).includes("generateContent"))
    .map((/** @type {any} */ model) => {
      const id = model.name.replace(/^models\//, "")
      return { id, name: model.displayName || id, input: model.inputTokenLimit || 1048576, output: model.outputTokenLimit || 8192 }
    })
}

/** A body of the Gemini API.
 * @param {Message[]} messages
 * @param {{ tools?: readonly Tool[], mustCall?: boolean }} [options] */
export function bodyOf(messages, { tools = [], mustCall = false } = {}) {
  const names = new Map() // by call id: a result names its function
  const contents = messages.map(({ role, parts }) => ({ role, parts: parts.map((part) => {
    if ("text" in part) return { text: part.text }
    if ("result" in part) return { functionResponse: { name: names.get(part.result.id) ?? "unknown", response: { result: part.result.text } } }
    const { id, name, args } = part.call
    names.set(id, name)
    const thoughtSignature = signatures.has(id) ? signatures.get(id) : UNKNOWN
    return { functionCall: { name, args }, ...(thoughtSignature && { thoughtSignature }) }
  }) })).filter(({ parts }) => parts.length)
  if (!tools.length) return { contents }
  const functionDeclarations = tools.map(({ name, description, inputSchema }) => ({ name, description, ...(inputSchema && { parametersJsonSchema: inputSchema }) }))
  return { contents, tools: [{ functionDeclarations }], toolConfig: { functionCallingConfig: { mode: mustCall ? "ANY" : "AUTO" } } }
}

/** The parts of an answer as they come: its text, and the calls of tools. Thoughts are left out.
 * @param {Pool} pool
 * @param {string} model
 * @param {Message[]} messages
 * @param {{ tools?: readonly Tool[], mustCall?: boolean, account?: string, signal?: AbortSignal }} [options]
 * @returns {AsyncGenerator<Part>} */
export async function* answer(pool, model, messages, { account = "", signal, ...options } = {}) {
  for await (const chunk of pool.stream(model, bodyOf(messages, options), { signal, ...(account && { account }) }))
    for (const part of chunk.candidates?.[0]?.content?.parts ?? []) {
      if (part.functionCall) {
        const id = `gemini-pool-${process.pid}-${++lastCall}`
        signatures.set(id, part.thoughtSignature)
        if (signatures.size > KEPT) signatures.delete(/** @type {string} */ (signatures.keys().next().value))
        yield { call: { id, name: part.functionCall.name, args: part.functionCall.args ?? {} } }
      } else if (part.text && !part.thought) yield { text: part.text }
    }
}
