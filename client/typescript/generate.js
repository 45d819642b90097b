// Makes wire.d.ts from the OpenRPC description: `node generate.js ../openrpc.json > wire.d.ts`.
import { readFileSync } from "node:fs"

const document = JSON.parse(readFileSync(process.argv[2], "utf8"))
const name = (ref) => ref.split("/").pop()

function type(schema) {
  if (schema.$ref) return name(schema.$ref)
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ")
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (schema.anyOf) return [...new Set(schema.anyOf.map(type))].join(" | ")
  if (schema.type === "array") return `Array<${schema.items ? type(schema.items) : "unknown"}>`
  if (schema.type === "object") {
    const values = schema.additionalProperties
    return `Record<string, ${typeof values === "object" ? type(values) : "unknown"}>`
  }
  return { string: "string", integer: "number", number: "number", boolean: "boolean", null: "null" }[schema.type] ?? "unknown"
}

const comment = (schema, indent = "") =>
  schema.description ? `${indent}/** ${schema.description.replace(/\s+/g, " ").trim()} */\n` : ""

const out = ["// Made from openrpc.json by generate.js. Do not edit.\n"]
for (const [title, schema] of Object.entries(document.components.schemas)) {
  const required = new Set(schema.required ?? [])
  // What a daemon answers has all of its fields; only parameters may be left out.
  const isParams = /Params$|^(ErrorData|ClientInfo|Usage)$/.test(title)
  const fields = Object.entries(schema.properties ?? {}).map(
    ([field, kind]) => `  ${field}${isParams && !required.has(field) ? "?" : ""}: ${type(kind)}\n`,
  )
  out.push(`${comment(schema)}export interface ${title} {\n${fields.join("")}}\n`)
}
const rows = document.methods.map(
  (method) =>
    `  ${JSON.stringify(method.name)}: { params: ${type(method["x-params"])}; result: ${type(method.result.schema)} }\n`,
)
out.push(`export interface Methods {\n${rows.join("")}}\n`)
const words = Object.keys(document["x-error-words"]).map((word) => JSON.stringify(word))
out.push(`export type ErrorWord =\n  | ${words.join("\n  | ")}\n`)
process.stdout.write(out.join("\n"))
