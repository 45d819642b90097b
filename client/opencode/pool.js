// What the plugin does, without opencode.
import { gatewayFetch } from "@gemini-pool/client/gateway"

/** A fetch to the gateway; opencode's session keeps its account, so that Google's cache is of use. */
export function poolFetch(over = gatewayFetch()) {
  return (input, init = {}) => {
    const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined))
    const session = headers.get("x-session-id") ?? headers.get("x-session-affinity")
    if (session) headers.set("x-gemini-pool-session", session)
    for (const name of ["x-goog-api-key", "authorization"]) headers.delete(name)
    return over(input, { ...init, headers })
  }
}

const percent = (fraction) => (fraction === null ? "   ?" : `${Math.round(fraction * 100)} %`.padStart(5))
const at = (seconds) => (seconds === null ? "" : `  resets ${new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`)

/** The pool's accounts and quotas as a table; when the daemon is absent, its error and what to type. */
export async function quotaText(pool) {
  try {
    const [{ accounts: entries, errors }, accounts] = [await pool.quota(), await pool.accounts()]
    const lines = []
    for (const account of accounts) {
      lines.push(`${account.id}  ${account.state}${account.reason ? `: ${account.reason}` : ""}`)
      for (const one of entries.filter((entry) => entry.account === account.id))
        lines.push(`  ${one.model.padEnd(28)} ${percent(one.fraction)} left${at(one.resets_at)}`)
      if (errors[account.id]) lines.push(`  ${errors[account.id]}`)
    }
    return lines.join("\n") || "There is no account yet: gemini-pool login"
  } catch (error) {
    return said(error)
  }
}

export const ACTIONS = [
  { label: "Verify it with one real call", value: "verify" },
  { label: "Use it (again)", value: "enable" },
  { label: "Use it no more", value: "disable" },
  { label: "Pin it: use it before all others", value: "pin" },
  { label: "Unpin it", value: "unpin" },
  { label: "Forget its cooldowns", value: "clearCooldown" },
]

/** The choices of the account menu, each with its state. Empty without a daemon. */
export async function accountChoices(pool) {
  try {
    return (await pool.accounts()).map(({ id, state, email, pinned }) => ({
      label: email ? `${id} (${email})` : id, value: id, hint: pinned?.length ? `${state}, pinned` : state,
    }))
  } catch {
    return []
  }
}

/** Do one of ACTIONS; a line for people. */
export async function act(pool, account, action) {
  try {
    if (action === "verify") {
      const [{ verdict }] = (await pool.call("account/verify", { accounts: [account] })).accounts
      return `${account}: ${verdict.state}${verdict.reason ? `, ${verdict.reason}` : ""}${verdict.next ? ` (${verdict.next})` : ""}`
    }
    const done = await pool.call(`account/${action}`, { account })
    if (action === "pin") return `${account}: pinned, used before all others`
    if (action === "unpin") return `${account}: not pinned`
    return action === "clearCooldown" ? `${account}: ${done.cleared} cooldowns forgotten` : `${account}: ${done.state}`
  } catch (error) {
    return said(error)
  }
}

const said = (error) => `gemini-pool: ${error.message}${error.hint ? `\n${error.hint}` : ""}`
