// Made from openrpc.json by generate.js. Do not edit.

/** `credential` is a type of accounts.toml. Its secret is named by `secret`, a reference as in accounts.toml but for `command`, or comes along as `secret_text` and is then kept in a file of the state folder. `settings`: further keys of accounts.toml. */
export interface AccountAddParams {
  account: string
  backend: "code-assist" | "developer-api" | "vertex"
  credential?: string
  secret?: Record<string, unknown> | null
  secret_text?: string
  target?: string
  scopes?: Array<string>
  settings?: Record<string, unknown>
  accept_terms_risk?: string
}

export interface AccountInfo {
  id: string
  backend: "code-assist" | "developer-api" | "vertex"
  credential: string
  state: string
  reason: string
  hint: string
  url: string
  available: boolean
  enabled: boolean
  priority: number
  project: string
  location: string
  bucket: string
  cost: "free" | "licensed" | "paid"
  data: "may-train" | "no-training"
  lend: boolean
  email: string
  tier: string
  health: HealthInfo
  token: TokenInfo
  cooldowns: Array<CooldownInfo>
  counters: CounterInfo
  models: Record<string, CounterInfo>
  in_flight: number
  last_used_at: number | null
  pinned: Array<string>
  reserve: number
}

export interface AccountListResult {
  accounts: Array<AccountInfo>
}

export interface AccountParams {
  account: string
}

/** `revoke`: end the login at Google, too, and delete its secret. `delete_secret`: delete it without that. */
export interface AccountRemoveParams {
  account: string
  revoke?: boolean
  delete_secret?: boolean
}

/** `secret_left`: where the secret still is, "" when nothing is left of it here. */
export interface AccountRemoveResult {
  account: string
  revoked: boolean
  secret_left: string
  notes: Array<string>
}

/** What became of an account, for people. `next`: exactly what to type or open next, "" when nothing is to be done. `licensed`: whether Code Assist serves it; None elsewhere, or where nobody knows yet. `notes`: worth knowing. */
export interface AccountVerdict {
  account: string
  backend: "code-assist" | "developer-api" | "vertex"
  ok: boolean
  state: string
  reason: string
  next: string
  url: string
  project: string
  tier: string
  email: string
  licensed: boolean | null
  notes: Array<string>
}

export interface AcquireParams {
  model: string
  forms?: Array<"ca" | "gl" | "vx">
  stream?: boolean
  session?: string
  account?: string
  exclude?: Array<string>
  wait_s?: number | null
  min_validity_s?: number
  priority?: "batch" | "interactive"
  allow_paid?: boolean | null
  data?: "may-train" | "no-training" | null
  request?: string
  detach?: boolean
}

/** Empty `accounts`: all. */
export interface ArchiveParams {
  passphrase: string
  accounts?: Array<string>
}

/** `archive`: an age file in base64. */
export interface ArchiveResult {
  archive: string
  accounts: Array<string>
  notes: Array<string>
}

export interface CancelParams {
  id: number | string
}

export interface CancelTokenParams {
  token: number | string
}

/** Empty: everything. */
export interface ClearCooldownParams {
  account?: string
  model?: string
}

/** `revived`: the account was suspended, and is tried again on this word. */
export interface ClearCooldownResult {
  cleared: number
  revived: boolean
}

export interface ClientInfo {
  name: string
  version?: string
}

export interface ClientStatus {
  name: string
  version: string
  pid: number
  connected_at: number
  leases: number
  in_flight: number
}

export interface ConfigError {
  file: string
  line: number
  column: number
  message: string
  hint: string
}

/** One cooldown with its evidence. `scope` says what `key` names; `told` is true when Google gave the time. */
export interface CooldownInfo {
  scope: string
  key: string
  model: string
  until: number
  kind: string
  told: boolean
  source: string
  reason: string
  since: number
  strikes: number
}

export interface CounterInfo {
  served: number
  failed: number
  rotated: number
  input_tokens: number
  output_tokens: number
}

/** Over the whole pool, kept over restarts. Every request ends as one of `answered`, `failed`, `cancelled`, `released` (its lease was given back, or its client went away) or `expired` (nobody told what came of it): with those in flight they add up to `requests`. `absorbed`: refusals that no client saw. `renewed_ahead`: renewals that ended while the old token was still valid. `waited_for_token`: requests that had to wait for a token call. */
export interface Counters {
  requests: number
  answered: number
  failed: number
  rotations: number
  absorbed: number
  cancelled: number
  renewals: number
  renewed_ahead: number
  waited_for_token: number
  released: number
  expired: number
}

export interface DaemonInfo {
  version: string
  protocol: number
  pid: number
  python: string
  started_at: number
  uptime_s: number
  config_file: string
  accounts_file: string
  state_dir: string
  socket: string
  gateway_socket: string
  gateway_url: string
  gateway_error: string
  supervised: string
}

/** One decision of the pool's, as `pool/explain` knows it. `account`: who was chosen, or who returns first. */
export interface DecisionInfo {
  decision: string
  at: number
  model: string
  account: string
  reason: string
  code: string | null
  attempt: number
}

/** `kept`: the connection outlives the daemon, and what is asked on it meanwhile waits for the successor. */
export interface Draining {
  reason: string
  grace_s: number
  kept: boolean
}

/** No parameters, or a result with nothing to tell. */
export interface Empty {
}

/** What a client may branch on. `code` is one of the words of `errors.py`; `retry_at` says when waiting helps. */
export interface ErrorData {
  code: string
  retryable?: boolean
  hint?: string
  retry_at?: number | null
  account?: string | null
  details?: unknown
}

/** `pool/event`. `dropped` is how many notifications this subscriber lost since the last one it got. */
export interface Event {
  kind: "account" | "cooldown" | "queue" | "quota" | "reload" | "request" | "token"
  level: "debug" | "error" | "info" | "warning"
  at: number
  text: string
  account: string
  model: string
  data: unknown
  dropped: number
}

export interface ExplainParams {
  model?: string
  session?: string
  decision?: string
}

/** `chosen`: the account, or None with the error word `code`. Of a recorded decision, everything is as it was at `at`; `recorded` false: its verdicts were not kept (they are worked out for as many decisions as a budget allows). */
export interface ExplainResult {
  model: string
  chosen: string | null
  reason: string
  strategy: string
  at: number
  accounts: Array<VerdictInfo>
  next_return_at: number | null
  next_return_account: string | null
  code: string | null
  decision: string
  recorded: boolean
}

/** `path`: opencode's auth.json, where it is not in its usual place. */
export interface ExportOpencodeParams {
  accounts: Array<string>
  path?: string
  home?: string
}

export interface ExportResult {
  accounts: Array<string>
  path: string
  notes: Array<string>
}

export interface GenerateParams {
  model: string
  request: unknown
  method?: "countTokens" | "embedContent" | "generateContent" | "streamGenerateContent"
  token?: number | string | null
  session?: string
  account?: string
  wait_s?: number | null
  priority?: "batch" | "interactive"
  allow_paid?: boolean | null
  data?: "may-train" | "no-training" | null
}

export interface HealthInfo {
  score: number
  success: number
  latency_s: number | null
  quota: number | null
  consecutive_failures: number
}

/** `path`: the file or folder, where it is not in its usual place. `home`: the home folder to look in, else the daemon's own. `account`: the id of the new account, or what ids begin with when there are several. `backend` (default: what the login is for there), `project`, `location`: of the new accounts. `client_secrets`, `use_gemini_cli`, `gemini_cli`, `accept_terms_risk`: as of LoginParams; with the risk accepted, Gemini CLI's client is looked for by itself where a login needs it. */
export interface ImportParams {
  source: "adc" | "cliproxyapi" | "gemini-cli" | "opencode"
  path?: string
  home?: string
  account?: string
  project?: string
  backend?: "code-assist" | "developer-api" | "vertex" | null
  location?: string
  client_secrets?: Record<string, unknown> | null
  use_gemini_cli?: boolean
  gemini_cli?: string
  accept_terms_risk?: string
}

/** `wording` is what is to be accepted before more can be done, `accept_terms_risk` the id that accepts it; both are empty when nothing waits for that. */
export interface ImportResult {
  logins: Array<ImportRow>
  notes: Array<string>
  wording: string
  accept_terms_risk: string
}

/** One login that was found. `result`: "imported", "blocked" (imported, but not used before the risk is accepted), "known" (an account has it already) or "refused". */
export interface ImportRow {
  found: string
  result: string
  account: string
  email: string
  project: string
  reason: string
  next: string
}

export interface InitializeParams {
  client?: ClientInfo | null
}

export interface InitializeResult {
  server: ServerInfo
  protocol: number
  methods: Array<string>
}

/** The right to send one request: write a body of `form`, POST it to `url` with `headers`, then report. `expires_at` is when the lease ends unless renewed, `ttl_s` how long that is from now. `request` names the request over all of its attempts, `decision` the recorded choice for `pool/explain`. `project` is what a body of form "ca" must name. */
export interface Lease {
  lease: string
  request: string
  account: string
  backend: "code-assist" | "developer-api" | "vertex"
  form: "ca" | "gl" | "vx"
  url: string
  headers: Record<string, string>
  expires_at: number
  ttl_s: number
  reason: string
  decision: string
  project: string
}

export interface LeaseInfo {
  lease: string
  request: string
  account: string
  model: string
  client: string
  granted_at: number
  expires_at: number
}

export interface LeaseParams {
  lease: string
}

/** One known limit of an account's bucket. `what`: "requests/minute", "input tokens/minute", "requests/day" … `used` is our own count. `source`: "configured", "told" by Google, "learnt" from our count, "cap" (the user's own). */
export interface LimitInfo {
  what: string
  limit: number
  used: number
  source: string
  resets_at: number | null
}

export interface LogLevelParams {
  level: "debug" | "error" | "info" | "warning"
}

/** Without `code`, waits for the browser. `code`: what a person pasted, in whatever form. */
export interface LoginFinishParams {
  login: string
  code?: string
}

/** `client_secrets`: the JSON of one's own OAuth client. `use_gemini_cli`: that of a Gemini CLI installed here (its folder may be given as `gemini_cli`), which asks for `accept_terms_risk`: the id of the wording that the error `blocked_by_terms` has in its details. Neither: the client that the account was logged in with before. `backend` (default "code-assist"), `project` and `location` are for a new account. `listen` false: no port is opened, a code is pasted. */
export interface LoginParams {
  account: string
  backend?: "code-assist" | "developer-api" | "vertex" | null
  project?: string
  location?: string
  client_secrets?: Record<string, unknown> | null
  use_gemini_cli?: boolean
  gemini_cli?: string
  accept_terms_risk?: string
  login_hint?: string
  listen?: boolean
}

/** `created`: the account is new. `secret`: where the login is kept. */
export interface LoginResult {
  account: string
  created: boolean
  email: string
  client_origin: string
  secret: string
  verdict: AccountVerdict
}

/** Open `url` in a browser. `port`: where the answer is listened for on 127.0.0.1, 0 when it must be pasted. Over SSH, `ssh -L PORT:127.0.0.1:PORT HOST` brings it here from another machine's browser. */
export interface LoginStarted {
  url: string
  login: string
  port: number
  redirect_uri: string
  expires_at: number
  client_origin: string
}

export interface PauseParams {
  account?: string
}

/** `model`: a glob; empty: every model. A pinned account is used before all others for what it can serve. */
export interface PinParams {
  account: string
  model?: string
}

export interface ProgressParams {
  token: number | string
  value: unknown
}

export interface QueueInfo {
  waiting: number
  oldest_s: number
  models: Array<QueuedModel>
}

/** Who waits for one model. `next_at`: when the first of them is served, by what is known now. */
export interface QueuedModel {
  model: string
  waiting: number
  oldest_s: number
  next_at: number
}

/** One family over all accounts; rate and outlook as of QuotaEntry. */
export interface QuotaAggregate {
  family: string
  accounts: number
  fraction: number | null
  used: number | null
  remaining: number | null
  next_reset_at: number | null
  rate_per_hour: number | null
  empty_at: number | null
  unused_at_reset: number | null
}

/** One account's quota for one model. `used`/`remaining`/`limit` are amounts where known, `fraction` is what remains (0 to 1). `source` is "google", "refusal", "config" or "own-count". `rate_per_hour`: the share that is used in an hour, as lately; at that rate it is empty at `empty_at`, or has the share `unused_at_reset` left when it resets. */
export interface QuotaEntry {
  account: string
  model: string
  family: string
  token_type: string
  window: string
  used: number | null
  remaining: number | null
  limit: number | null
  fraction: number | null
  resets_at: number | null
  source: string
  observed_at: number
  rate_per_hour: number | null
  empty_at: number | null
  unused_at_reset: number | null
}

export interface QuotaParams {
  refresh?: boolean
}

export interface QuotaResult {
  accounts: Array<QuotaEntry>
  families: Array<QuotaAggregate>
  errors: Record<string, string>
}

/** What a reload changed, by account id; `errors` holds what was refused (the old value stays in force), `warnings` what is in force and cannot work. */
export interface ReloadResult {
  added: Array<string>
  removed: Array<string>
  changed: Array<string>
  unchanged: number
  config_changed: Array<string>
  restart_needed: Array<string>
  errors: Array<ConfigError>
  warnings: Array<string>
}

export interface RenewResult {
  expires_at: number
  ttl_s: number
}

/** What happened to a lease: the raw status, headers and error body of the answer, or `error` when none came. `body` may be the text or the decoded JSON. `usage` may be Google's usageMetadata or a `Usage`. */
export interface ReportParams {
  lease: string
  status?: number | null
  headers?: Record<string, string>
  body?: unknown
  usage?: Record<string, unknown> | null
  error?: string
  first_byte_s?: number | null
  total_s?: number | null
}

export interface ReportResult {
  next: "done" | "give-up" | "retry"
  reason: string
  lease: Lease | null
  retry_at: number | null
}

export interface ServerInfo {
  name: string
  version: string
}

export interface StatusResult {
  version: string
  protocol: number
  uptime_s: number
  state: string
  accounts: Array<AccountInfo>
  model_cooldowns: Array<CooldownInfo>
  counters: Counters
  leases: Array<LeaseInfo>
  queue: QueueInfo
  quota: Array<QuotaEntry>
  clients: Array<ClientStatus>
  config_errors: Array<ConfigError>
  gateway_url: string
  gateway_error: string
  in_flight: number
  decisions: Array<DecisionInfo>
}

export interface StreamResult {
  chunks: number
  account: string
  usage: Usage | null
  finish_reason: string
}

export interface SubscribeParams {
  events?: Array<"account" | "cooldown" | "queue" | "quota" | "reload" | "request" | "token">
}

export interface TokenInfo {
  state: string
  expires_at: number | null
  renew_at: number | null
  renewed_at: number | null
  renewals: number
  failures: number
  last_error: string
}

export interface TokenParams {
  account?: string
  model?: string
  backend?: "code-assist" | "developer-api" | "vertex" | null
  scopes?: Array<string>
  min_validity_s?: number
}

export interface TokenResult {
  account: string
  token: string
  token_type: string
  expires_at: number | null
}

export interface UnarchiveParams {
  archive: string
  passphrase: string
  accounts?: Array<string>
}

/** Tokens of one answer, as Google counts them. `output_tokens` includes thoughts. */
export interface Usage {
  input_tokens?: number
  output_tokens?: number
  cached_tokens?: number
  thought_tokens?: number
  total_tokens?: number
}

/** Why an account would (not) be chosen: `verdict` is "chosen", "available" or the reason it is out. `cooldowns`: the evidence of everything that reaches it, the longest first; `limits`: what is known of its bucket. */
export interface VerdictInfo {
  account: string
  verdict: string
  reason: string
  available: boolean
  returns_at: number | null
  rank: Array<number>
  cooldowns: Array<CooldownInfo>
  limits: Array<LimitInfo>
}

/** Empty: every account. */
export interface VerifyParams {
  accounts?: Array<string>
}

export interface VerifyResult {
  accounts: Array<VerifyRow>
}

/** `call`: what Google was asked, "" when it did not come to that. */
export interface VerifyRow {
  verdict: AccountVerdict
  call: string
  took_s: number | null
}

export interface Methods {
  "initialize": { params: InitializeParams; result: InitializeResult }
  "pool/acquire": { params: AcquireParams; result: Lease }
  "pool/report": { params: ReportParams; result: ReportResult }
  "pool/renew": { params: LeaseParams; result: RenewResult }
  "pool/release": { params: LeaseParams; result: Empty }
  "pool/generate": { params: GenerateParams; result: Record<string, unknown> | StreamResult }
  "pool/cancel": { params: CancelTokenParams; result: Empty }
  "pool/token": { params: TokenParams; result: TokenResult }
  "pool/status": { params: Empty; result: StatusResult }
  "pool/quota": { params: QuotaParams; result: QuotaResult }
  "pool/explain": { params: ExplainParams; result: ExplainResult }
  "pool/subscribe": { params: SubscribeParams; result: Empty }
  "pool/pause": { params: PauseParams; result: Empty }
  "pool/resume": { params: PauseParams; result: Empty }
  "account/list": { params: Empty; result: AccountListResult }
  "account/login": { params: LoginParams; result: LoginStarted }
  "account/loginFinish": { params: LoginFinishParams; result: LoginResult }
  "account/add": { params: AccountAddParams; result: VerifyRow }
  "account/remove": { params: AccountRemoveParams; result: AccountRemoveResult }
  "account/enable": { params: AccountParams; result: AccountVerdict }
  "account/disable": { params: AccountParams; result: AccountVerdict }
  "account/verify": { params: VerifyParams; result: VerifyResult }
  "account/import": { params: ImportParams; result: ImportResult }
  "account/exportOpencode": { params: ExportOpencodeParams; result: ExportResult }
  "account/exportArchive": { params: ArchiveParams; result: ArchiveResult }
  "account/importArchive": { params: UnarchiveParams; result: ImportResult }
  "account/pin": { params: PinParams; result: Empty }
  "account/unpin": { params: PinParams; result: Empty }
  "account/clearCooldown": { params: ClearCooldownParams; result: ClearCooldownResult }
  "daemon/info": { params: Empty; result: DaemonInfo }
  "daemon/logLevel": { params: LogLevelParams; result: Empty }
  "daemon/reload": { params: Empty; result: ReloadResult }
}

export type ErrorWord =
  | "all_cooling_down"
  | "no_account_for_model"
  | "needs_paid"
  | "unknown_model"
  | "deadline"
  | "account_dead"
  | "login_required"
  | "unlicensed"
  | "unsupported_client"
  | "blocked_by_terms"
  | "not_lent"
  | "upstream_error"
  | "stream_cut"
  | "bad_request"
  | "overloaded"
  | "config_invalid"
  | "not_found"
  | "shutting_down"
