export declare const BASE_URL: string
/** The gateway's Unix socket: beside the daemon's. */
export declare function gatewaySocket(env?: Record<string, string | undefined>): string
/** A `fetch` whose every request goes to the gateway; of the URL only path and query count. */
export declare function gatewayFetch(socket?: string): typeof fetch
