-- The wire: JSON-RPC 2.0 in the framing of language servers, over the daemon's Unix socket. Connects when it is asked,
-- again by itself when the daemon was restarted. Callbacks come on the main loop. Nothing here knows of windows.

local uv = vim.uv or vim.loop
local M = { VERSION = '0.1.0', connect_ms = 2000 }

local RETRY_MS = 50
local NOT_SENT = 'not sent'

-- What may be sent twice without harm, if the connection was lost in the middle.
local REPEATABLE = {}
for _, method in ipairs({
  'initialize', 'pool/token', 'pool/status', 'pool/quota', 'pool/explain', 'account/list', 'daemon/info',
}) do
  REPEATABLE[method] = true
end

local WORDS = { [-32601] = 'not_found', [-32602] = 'bad_request', [-32600] = 'bad_request', [-32700] = 'bad_request', [-32800] = 'cancelled' }

--- Where the daemon listens.
function M.socket_path()
  local env, home = uv.os_getenv, uv.os_homedir() -- vim.env may not be asked in a callback
  if M.socket or env('GEMINI_POOL_SOCKET') then
    return M.socket or env('GEMINI_POOL_SOCKET')
  end
  local mac = uv.os_uname().sysname == 'Darwin'
  if not mac and env('XDG_RUNTIME_DIR') then
    return env('XDG_RUNTIME_DIR') .. '/gemini-pool/pool.sock'
  end
  if mac then
    return home .. '/Library/Application Support/gemini-pool/run/pool.sock'
  end
  local state = env('GEMINI_POOL_STATE_DIR') or ((env('XDG_STATE_HOME') or (home .. '/.local/state')) .. '/gemini-pool')
  return state .. '/run/pool.sock'
end

local function failure(code, message, hint, retryable)
  return { code = code, message = message, hint = hint, retryable = retryable or false }
end

local function not_running(path)
  local hint = 'start it with `systemctl --user start gemini-pool`, or with `gemini-pool run`'
  return failure('not_running', 'no daemon answers at ' .. path, hint, true)
end

-- An error reply as callers see it: {code, message, hint, retryable, retry_at, account, details}.
local function told(error)
  local data = type(error.data) == 'table' and error.data or {}
  local out = vim.tbl_extend('force', { retryable = false }, data)
  out.code = data.code or WORDS[error.code] or 'internal'
  out.message = error.message
  return out
end

local conn = nil -- the one connection; nil when there is none
local serial = 0
local listeners = {} -- of subscriptions: {kinds, on_event}

local function lose(c)
  if c.lost then
    return
  end
  c.lost = true
  if conn == c then
    conn = nil
  end
  if not c.pipe:is_closing() then
    c.pipe:close()
  end
  local pending = c.pending
  c.pending = {}
  for _, call in pairs(pending) do
    call.ended(NOT_SENT == call.state and NOT_SENT or 'lost')
  end
end

local function write(c, message, sent)
  local text = vim.json.encode(message)
  c.pipe:write(('Content-Length: %d\r\n\r\n%s'):format(#text, text), function(err)
    if sent then
      sent(err)
    end
    if err then
      lose(c)
    end
  end)
end

local function hear(c, message)
  if message.method == '$/progress' then
    local on_chunk = c.streams[message.params.token]
    if on_chunk then
      vim.schedule(function()
        on_chunk(message.params.value)
      end)
    end
  elseif message.method == 'pool/event' then
    for _, listener in ipairs(listeners) do
      vim.schedule(function()
        listener.on_event(message.params)
      end)
    end
  elseif message.method == 'daemon/draining' and message.params and message.params.kept then
    return -- the connection outlives the daemon: what is asked meanwhile waits
  elseif message.method == 'daemon/draining' then
    c.draining = true -- what runs goes on; the next call opens a new connection
    if conn == c then
      conn = nil
    end
  elseif message.id ~= nil and message.id ~= vim.NIL then
    local call = c.pending[message.id]
    if call then
      c.pending[message.id] = nil
      call.ended(nil, message.error and told(message.error) or nil, message.result)
      if c.draining and not next(c.pending) then
        lose(c)
      end
    end
  end
end

local function feed(c, data)
  c.buffer = c.buffer .. data
  while true do
    local ends = c.buffer:find('\r\n\r\n', 1, true)
    local length = ends and tonumber(c.buffer:sub(1, ends):match('[Cc]ontent%-[Ll]ength:%s*(%d+)'))
    if not length or #c.buffer < ends + 3 + length then
      return
    end
    local text = c.buffer:sub(ends + 4, ends + 3 + length)
    c.buffer = c.buffer:sub(ends + 4 + length)
    hear(c, vim.json.decode(text, { luanil = { object = true } }))
  end
end

-- done(err, connection), after at most `connect_ms`: a daemon that is being restarted is back by then.
local function connect(done)
  if conn then
    return done(nil, conn)
  end
  local path, began = M.socket_path(), uv.now()
  local function try()
    local pipe = uv.new_pipe(false)
    pipe:connect(path, function(err)
      if not err then
        local c = { pipe = pipe, buffer = '', pending = {}, streams = {} }
        pipe:read_start(function(read_err, data)
          if read_err or not data then
            lose(c)
          else
            feed(c, data)
          end
        end)
        write(c, {
          jsonrpc = '2.0', id = 'hello', method = 'initialize',
          params = { client = { name = 'neovim', version = M.VERSION } },
        })
        if #listeners > 0 and listeners[1].in_force then
          write(c, { jsonrpc = '2.0', id = 'events', method = 'pool/subscribe', params = { events = listeners[1].kinds } })
        end
        conn = c
        return done(nil, c)
      end
      pipe:close()
      local absent = err:find('ENOENT') or err:find('ECONNREFUSED') or err:find('EAGAIN') or err:find('ECONNRESET')
      if not absent or uv.now() - began >= M.connect_ms then
        return done(not_running(path))
      end
      local timer = uv.new_timer()
      timer:start(RETRY_MS, 0, function()
        timer:close()
        try()
      end)
    end)
  end
  try()
end

--- Call a method. `done(err, result)`; err: {code, message, hint, retryable, retry_at, account}. Returns {cancel = function}.
--- `on_chunk(value)` gets what a streaming `pool/generate` sends.
function M.call(method, params, done, on_chunk)
  local handle, tries = { cancelled = false }, 0
  local function finish(err, result)
    vim.schedule(function()
      if not handle.done then
        handle.done = true
        done(err, result)
      end
    end)
  end
  local function attempt()
    tries = tries + 1
    connect(function(err, c)
      if err or handle.cancelled then
        return finish(err or failure('cancelled', 'the request was cancelled'))
      end
      serial = serial + 1
      local id, call = serial, { state = NOT_SENT }
      local sent = vim.tbl_extend('force', vim.empty_dict(), params or {})
      if on_chunk then
        sent.token = 'nvim-' .. id
        c.streams[sent.token] = on_chunk
      end
      function call.ended(lost, error, result)
        c.streams[sent.token or ''] = nil
        if lost then
          if tries == 1 and (lost == NOT_SENT or REPEATABLE[method]) and not handle.cancelled then
            return attempt()
          end
          return finish(failure('connection_lost', 'the daemon went away in the middle of ' .. method, 'repeat it if it may be repeated', true))
        end
        if error and error.code == 'shutting_down' and tries == 1 then
          if conn == c then
            conn = nil
          end
          return attempt()
        end
        finish(error, result)
      end
      c.pending[id] = call
      function handle.send_cancel()
        if not c.lost then
          write(c, { jsonrpc = '2.0', method = '$/cancelRequest', params = { id = id } })
        end
      end
      write(c, { jsonrpc = '2.0', id = id, method = method, params = next(sent) and sent or vim.empty_dict() }, function(write_err)
        if not write_err then
          call.state = 'sent'
        end
      end)
    end)
  end
  function handle.cancel()
    if not handle.done and not handle.cancelled then
      handle.cancelled = true
      if handle.send_cancel then
        handle.send_cancel()
      end
    end
  end
  attempt()
  return handle
end

--- The same, waiting: returns err, result.
function M.wait(method, params, timeout_ms)
  local out
  local handle = M.call(method, params, function(err, result)
    out = { err, result }
  end)
  if not vim.wait(timeout_ms or 10000, function()
    return out ~= nil
  end, 5) then
    handle.cancel()
    return failure('deadline', method .. ' took too long')
  end
  return out[1], out[2]
end

--- Hear of events (kinds: see the daemon's README); kept over reconnects. `ready(err)` when it is in force.
function M.subscribe(kinds, on_event, ready)
  listeners[#listeners + 1] = { kinds = kinds, on_event = on_event }
  M.call('pool/subscribe', { events = kinds }, function(err)
    listeners[1].in_force = listeners[1].in_force or not err
    if ready then
      ready(err)
    end
  end)
end

--- End the connection; the next call opens another.
function M.close()
  listeners = {}
  if conn then
    lose(conn)
  end
end

return M
