// opencode plugin: the google provider goes to the gemini-pool daemon over its Unix socket. opencode calls every
// export of this file as a plugin, so there is one; what can be tested without opencode is in pool.js.
import { Pool } from "@gemini-pool/client"
import { BASE_URL } from "@gemini-pool/client/gateway"
import { ACTIONS, accountChoices, act, poolFetch, quotaText } from "./pool.js"

const KEY = { type: "success", key: "gemini-pool" } // never sent anywhere: on the Unix socket nobody asks for a key
const OPTIONS = () => ({ apiKey: KEY.key, baseURL: `${BASE_URL}/v1beta`, fetch: poolFetch() })

export const GeminiPool = async () => {
  const pool = new Pool({ name: "opencode", connectMs: 500 })
  return {
    config: async (config) => {
      const google = ((config.provider ??= {}).google ??= {})
      google.options = { ...OPTIONS(), ...google.options }
      ;(config.command ??= {}).gquota ??= {
        description: "What is left of each Gemini account's quota",
        template: "Call the tool `gemini_quota` exactly once, then print its output as it is in a code block. $ARGUMENTS",
      }
    },
    tool: {
      gemini_quota: {
        description: "What is left of the quota of every Gemini account in the pool, per model, and when it resets.",
        args: {},
        execute: async () => quotaText(pool),
      },
    },
    auth: {
      provider: "google",
      loader: async () => OPTIONS(),
      methods: [
        { type: "api", label: "gemini-pool: use the pool", prompts: [], authorize: async () => KEY },
        {
          type: "api",
          label: "gemini-pool: manage an account",
          prompts: [
            { type: "select", key: "account", message: "Which account?", options: await accountChoices(pool) },
            { type: "select", key: "action", message: "What to do with it?", options: ACTIONS },
          ],
          authorize: async (inputs = {}) => {
            console.log(await act(pool, inputs.account, inputs.action))
            return KEY
          },
        },
        {
          type: "oauth",
          label: "gemini-pool: log an account in again",
          prompts: [{ type: "text", key: "account", message: "Which account?", placeholder: "its id, as in accounts.toml" }],
          authorize: async (inputs = {}) => {
            const { url, login } = await pool.call("account/login", { account: inputs.account })
            return {
              url,
              instructions: "Open the address in a browser of this machine, and come back here.",
              method: "auto",
              callback: async () => {
                const { verdict } = await pool.call("account/loginFinish", { login })
                return verdict.ok ? KEY : { type: "failed" }
              },
            }
          },
        },
      ],
    },
  }
}
