// What the extension shows and does, without VS Code: Node alone runs it against a daemon. Chat is in chat.js.
// @ts-check
/** @typedef {import("../typescript/index.js").Pool} Pool */
/** @typedef {import("../typescript/index.js").LoginParams} LoginParams */

/** @param {number | null} fraction */
const percent = (fraction) => (fraction === null ? "?" : `${Math.round(fraction * 100)} %`)
/** @param {number | null} seconds */
const at = (seconds) => (seconds === null ? "" : new Date(seconds * 1000).toLocaleString())

/** An error in one line, and what to type next.
 * @param {any} error */
export const said = (error) => `gemini-pool: ${error.message}${error.hint ? ` (${error.hint})` : ""}`

/** The status bar: the tightest quota, or why there is none. Never fails. `state` is "ok", "low" (under a tenth) or "off".
 * @param {Pool} pool
 * @returns {Promise<{ text: string, tooltip: string, state: "ok" | "low" | "off" }>} */
export async function statusBar(pool) {
  try {
    const [quota, accounts] = await Promise.all([pool.quota(), pool.accounts()])
    const pinned = accounts.filter((one) => one.pinned?.length).map((one) => one.id)
    const pin = pinned.length ? `\npinned: ${pinned.join(", ")}` : ""
    const known = quota.accounts.filter((entry) => entry.fraction !== null)
    if (!known.length) return { text: "gemini ok", tooltip: `nothing is known of any quota yet${pin}`, state: "ok" }
    const [least] = known.sort((a, b) => Number(a.fraction) - Number(b.fraction))
    const tooltip = `${least.account}: ${percent(least.fraction)} of ${least.model} left${least.resets_at === null ? "" : `, resets ${at(least.resets_at)}`}${pin}`
    return { text: `gemini ${percent(least.fraction)}`, tooltip, state: Number(least.fraction) < 0.1 ? "low" : "ok" }
  } catch (error) {
    return { text: /** @type {any} */ (error).code === "not_running" ? "gemini off" : "gemini ?", tooltip: said(error), state: "off" }
  }
}

/** The accounts with their state, for a quick pick.
 * @param {Pool} pool */
export async function accountItems(pool) {
  return (await pool.accounts()).map(({ id, backend, state, reason, email, tier, enabled, pinned = [] }) => ({
    label: id,
    description: [state, pinned.length && (pinned.includes("*") ? "pinned" : `pinned for ${pinned.join(" ")}`)].filter(Boolean).join(", "),
    detail: [backend, email, tier, reason].filter(Boolean).join(" · "),
    enabled,
    pinned: pinned.length > 0,
  }))
}

/** What can be done with an account of `accountItems`.
 * @param {{ enabled: boolean, pinned: boolean }} item */
export const actionItems = ({ enabled, pinned }) => [
  { label: "Verify it with one real call", action: "verify" },
  { label: "Log it in again", action: "login" },
  pinned ? { label: "Unpin it", action: "unpin" } : { label: "Pin it: use it before all others", action: "pin" },
  enabled ? { label: "Use it no more", action: "disable" } : { label: "Use it again", action: "enable" },
  { label: "Forget its cooldowns", action: "clearCooldown" },
]

/** Do one of verify, enable, disable, pin, unpin and clearCooldown; a line for people.
 * @param {Pool} pool
 * @param {string} account
 * @param {string} action */
export async function act(pool, account, action) {
  if (action === "clearCooldown") return `${account}: ${(await pool.call("account/clearCooldown", { account })).cleared} cooldowns forgotten`
  if (action === "pin") return await pool.pin(account), `${account} is used before all others, in every program.`
  if (action === "unpin") return await pool.unpin(account), `${account} is not pinned any more.`
  if (action === "verify") return verdictLine((await pool.call("account/verify", { accounts: [account] })).accounts[0].verdict)
  return verdictLine(await pool.call(action === "enable" ? "account/enable" : "account/disable", { account }))
}

/** @param {import("../typescript/index.js").AccountVerdict} verdict */
const verdictLine = ({ account, state, reason, next }) => `${account}: ${state}${reason ? `, ${reason}` : ""}${next ? ` (${next})` : ""}`

/** @param {Pool} pool */
export async function quotaText(pool) {
  const { accounts, errors } = await pool.quota({ refresh: true })
  const lines = accounts.map((one) => `${one.account}  ${one.model}  ${percent(one.fraction)} left${one.resets_at === null ? "" : `, resets ${at(one.resets_at)}`}`)
  for (const [account, why] of Object.entries(errors)) lines.push(`${account}  ${why}`)
  return lines.join("\n") || "nothing is known of any quota yet"
}

/** Who would be chosen for a model, and why the others are not.
 * @param {Pool} pool
 * @param {string} model */
export async function explainText(pool, model) {
  const found = await pool.explain(model)
  const lines = [`${model}: ${found.chosen ?? "nobody"}  ${found.reason}`]
  for (const one of found.accounts)
    lines.push(`  ${one.account}  ${one.verdict}  ${one.reason}${one.returns_at === null ? "" : `, returns ${at(one.returns_at)}`}`)
  return lines.join("\n")
}

/** Log an account in; a line for people, or "" when the person gave up. `ui` asks: `client` which OAuth client to use (as
 * fields of LoginParams), `accept` the risk in that wording, `open` opens an address, `paste` asks for what Google's page
 * led to, where no browser reaches this machine (`remote`). `signal` ends the wait for the browser.
 * @param {Pool} pool
 * @param {string} account
 * @param {{ remote: boolean, client: () => Promise<Partial<LoginParams> | undefined>, accept: (wording: string) => Promise<boolean>,
 *   open: (url: string) => Promise<unknown>, paste: () => Promise<string | undefined>, signal?: AbortSignal }} ui */
export async function login(pool, account, ui) {
  const client = await ui.client()
  if (!client) return ""
  const started = await begin(pool, { account, listen: !ui.remote, ...client }, ui.accept)
  if (!started) return ""
  await ui.open(started.url)
  const code = started.port ? undefined : await ui.paste()
  if (!started.port && !code) return ""
  const { verdict } = await pool.call("account/loginFinish", { login: started.login, ...(code && { code }) }, { signal: ui.signal })
  return verdictLine(verdict)
}

/** @param {Pool} pool
 * @param {LoginParams} params
 * @param {(wording: string) => Promise<boolean>} accept
 * @returns {Promise<import("../typescript/index.js").LoginStarted | null>} */
async function begin(pool, params, accept) {
  try {
    return await pool.call("account/login", params)
  } catch (error) {
    const { code, details } = /** @type {any} */ (error)
    if (code !== "blocked_by_terms" || !details?.accept_terms_risk || params.accept_terms_risk) throw error
    if (!(await accept(details.wording))) return null
    /** @type {LoginParams} */
    const accepted = { ...params, accept_terms_risk: details.accept_terms_risk }
    return pool.call("account/login", accepted)
  }
}
