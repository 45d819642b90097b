import type { AcquireParams, AccountInfo, DaemonInfo, ErrorWord, Event, ExplainResult, GenerateParams, Lease, Methods, QuotaResult, RenewResult, ReportParams, ReportResult, StatusResult, StreamResult, TokenParams, TokenResult } from "./wire.js"

export type * from "./wire.js"
export declare const VERSION: string
export declare function socketPath(env?: Record<string, string | undefined>, platform?: string): string

/** The daemon refused, or is not there. Branch on `code`; `hint` is the next thing to type. */
export declare class PoolError extends Error {
  readonly code: ErrorWord | "not_running" | "connection_lost" | "cancelled" | "protocol" | "internal" | (string & {})
  readonly hint: string
  readonly retryable: boolean
  /** Unix seconds. */
  readonly retryAt: number | null
  readonly account: string | null
  readonly details: unknown
  readonly rpcCode: number
}

export interface PoolOptions {
  /** Default: the contract's place. */
  socket?: string
  /** Shown in status. */
  name?: string
  /** How long to try while nobody answers. */
  connectMs?: number
}
export interface Cancellable { signal?: AbortSignal }
export type GenerateOptions = Omit<GenerateParams, "model" | "request" | "method" | "token"> & Cancellable
export type Chunk = Record<string, any>
/** A prompt, or a body of the Gemini API. */
export type GenerateRequest = string | Record<string, unknown>

export declare class Pool {
  constructor(options?: PoolOptions)
  readonly socket: string
  call<M extends keyof Methods>(method: M, params?: Methods[M]["params"], options?: Cancellable): Promise<Methods[M]["result"]>
  call(method: string, params?: object, options?: Cancellable): Promise<unknown>
  acquire(model: string, options?: Omit<AcquireParams, "model">): Promise<Lease>
  report(lease: Lease | string, outcome?: Omit<ReportParams, "lease">): Promise<ReportResult>
  renew(lease: Lease | string): Promise<RenewResult>
  release(lease: Lease | string): Promise<unknown>
  withLease<T>(model: string, options: Omit<AcquireParams, "model">, send: (lease: Lease) => Promise<T>): Promise<T>
  token(choice?: string | TokenParams): Promise<TokenResult>
  status(): Promise<StatusResult>
  quota(options?: { refresh?: boolean }): Promise<QuotaResult>
  explain(model: string, options?: { session?: string }): Promise<ExplainResult>
  accounts(): Promise<AccountInfo[]>
  info(): Promise<DaemonInfo>
  /** Use an account before all others for what it can serve; `model`: a glob, default: every model. */
  pin(account: string, model?: string): Promise<unknown>
  /** No more; `model`: the glob that it was pinned for, default: all. */
  unpin(account: string, model?: string): Promise<unknown>
  generate(model: string, request: GenerateRequest, options?: GenerateOptions & { method?: GenerateParams["method"] }): Promise<Chunk>
  stream(model: string, request: GenerateRequest, options?: GenerateOptions): AsyncGenerator<Chunk, StreamResult, void>
  events(...kinds: Event["kind"][]): Promise<AsyncIterableIterator<Event>>
  close(): void
}
