-- What people and other plugins use: generate, the statusline, and the verbs behind :GeminiPool.

local rpc = require('gemini_pool.rpc')
local M = { config = { model = 'gemini-3-flash-preview', refresh_s = 60 } }

--- Optional. {socket = path, model = default model, refresh_s = seconds between two looks at the quota}
function M.setup(opts)
  M.config = vim.tbl_extend('force', M.config, opts or {})
  rpc.socket = M.config.socket
end

local function say(err)
  local text = ('gemini-pool: %s%s'):format(err.message, err.hint and err.hint ~= '' and ('\n' .. err.hint) or '')
  vim.notify(text, vim.log.levels.ERROR)
end

--- The text of one answer or chunk.
function M.text(value)
  local out = {}
  local candidate = (value.candidates or {})[1] or {}
  for _, part in ipairs((candidate.content or {}).parts or {}) do
    if part.text and not part.thought then
      out[#out + 1] = part.text
    end
  end
  return table.concat(out)
end

--- Ask a model. opts: {prompt = text | request = body of generateContent, model?, session?, on_chunk?(text, value),
--- on_done?(err, result)}. With on_chunk the answer streams; result is then {chunks, account, usage, finish_reason}.
--- Returns {cancel = function}.
function M.generate(opts)
  local params = {
    model = opts.model or M.config.model,
    request = opts.request or { contents = { { role = 'user', parts = { { text = opts.prompt } } } } },
    session = opts.session,
  }
  local done = opts.on_done or function(err)
    if err then
      say(err)
    end
  end
  if not opts.on_chunk then
    return rpc.call('pool/generate', params, done)
  end
  params.method = 'streamGenerateContent'
  return rpc.call('pool/generate', params, done, function(value)
    opts.on_chunk(M.text(value), value)
  end)
end

-- ---- windows --------------------------------------------------------------------------------------------------

local function scratch(name, lines)
  vim.cmd('botright new')
  local buffer = vim.api.nvim_get_current_buf()
  vim.bo[buffer].buftype, vim.bo[buffer].bufhidden, vim.bo[buffer].swapfile = 'nofile', 'wipe', false
  pcall(vim.api.nvim_buf_set_name, buffer, 'gemini-pool://' .. name)
  vim.api.nvim_buf_set_lines(buffer, 0, -1, false, lines or {})
  vim.keymap.set('n', 'q', '<cmd>close<cr>', { buffer = buffer, desc = 'close' })
  return buffer
end

local function append(buffer, text)
  if not vim.api.nvim_buf_is_valid(buffer) then
    return
  end
  local last = vim.api.nvim_buf_get_lines(buffer, -2, -1, false)[1] or ''
  vim.api.nvim_buf_set_lines(buffer, -2, -1, false, vim.split(last .. text, '\n', { plain = true }))
end

local function percent(fraction)
  return fraction and ('%3d %%'):format(math.floor(100 * fraction + 0.5)) or '  ? '
end

local function at(instant)
  return instant and os.date('%H:%M:%S', math.floor(instant)) or ''
end

local function shown(name, method, params, lines)
  rpc.call(method, params, function(err, result)
    if err then
      return say(err)
    end
    scratch(name, lines(result))
  end)
end

-- ---- the verbs ------------------------------------------------------------------------------------------------

local verbs = {}

function verbs.status()
  shown('status', 'pool/status', {}, function(status)
    local out = {}
    for _, account in ipairs(status.accounts or {}) do
      local note = #(account.pinned or {}) > 0 and 'pinned for ' .. table.concat(account.pinned, ' ') .. '  ' or ''
      local line = ('%-20s %-14s %-16s %s%s'):format(account.id, account.backend, account.state, note, account.reason or '')
      out[#out + 1] = vim.trim(line)
    end
    return #out > 0 and out or { 'no accounts yet: gemini-pool account add' }
  end)
end

function verbs.quota()
  shown('quota', 'pool/quota', {}, function(quota)
    local out = {}
    for _, family in ipairs(quota.families or {}) do
      out[#out + 1] = ('%-28s %s left'):format(family.family, percent(family.fraction))
    end
    for _, each in ipairs(quota.accounts or {}) do
      out[#out + 1] = ('  %-18s %-24s %s left  %s'):format(each.account, each.model, percent(each.fraction), at(each.resets_at))
    end
    return #out > 0 and out or { 'nothing is known of any quota yet' }
  end)
end

function verbs.explain(model)
  shown('explain', 'pool/explain', { model = model or M.config.model }, function(found)
    local out = { ('%s: %s'):format(found.model or model, found.chosen or 'nobody') .. '  ' .. (found.reason or '') }
    for _, each in ipairs(found.accounts or {}) do
      out[#out + 1] = ('  %-20s %-16s %s  %s'):format(each.account, each.verdict, each.reason or '', at(each.returns_at))
    end
    return out
  end)
end

function verbs.ask(...)
  local words = { ... }
  local buffer = scratch('answer')
  local function done(err, result)
    if err then
      append(buffer, '\n' .. err.message .. (err.hint and ('\n' .. err.hint) or ''))
      return say(err)
    end
    M.last = result
  end
  local handle = M.generate({
    prompt = table.concat(words, ' '),
    on_chunk = function(text)
      append(buffer, text)
    end,
    on_done = done,
  })
  vim.keymap.set('n', '<C-c>', handle.cancel, { buffer = buffer, desc = 'stop the answer' })
  vim.api.nvim_create_autocmd('BufWipeout', { buffer = buffer, callback = handle.cancel })
end

function verbs.login(account)
  rpc.call('account/login', { account = account }, function(err, flow)
    if err then
      return say(err)
    end
    vim.notify('Open this address to log in:\n' .. flow.url)
    if vim.ui.open then -- Neovim 0.10
      vim.ui.open(flow.url)
    end
    rpc.call('account/loginFinish', { login = flow.login }, function(failed, finished)
      if failed then
        return say(failed)
      end
      local verdict = finished.verdict
      local level = verdict.ok and vim.log.levels.INFO or vim.log.levels.WARN
      local todo = (verdict.next or '') ~= '' and '\n' .. verdict.next or ''
      vim.notify(('gemini-pool: %s is %s%s'):format(finished.account, verdict.state, todo), level)
    end)
  end)
end

local function plain(method, word)
  return function(account, model)
    rpc.call(method, { account = account, model = model }, function(err)
      if err then
        return say(err)
      end
      vim.notify(('gemini-pool: %s %s%s'):format(account or 'the pool', word, model and ' for ' .. model or ''))
    end)
  end
end

verbs.pin = plain('account/pin', 'is pinned')
verbs.unpin = plain('account/unpin', 'is not pinned any more')
verbs.pause = plain('pool/pause', 'is paused')
verbs.resume = plain('pool/resume', 'goes on')

--- :GeminiPool VERB …
function M.command(words)
  local verb = words[1] or 'status'
  if not verbs[verb] then
    return vim.notify('gemini-pool: no verb ' .. verb .. '; there are ' .. table.concat(M.verbs(), ', '), vim.log.levels.ERROR)
  end
  verbs[verb](unpack(words, 2))
end

function M.verbs()
  local names = vim.tbl_keys(verbs)
  table.sort(names)
  return names
end

--- Completion: verbs, then account ids.
function M.complete(lead, line)
  local before = vim.split(line:sub(1, #line - #lead), '%s+', { trimempty = true })
  local found = {}
  if #before <= 1 then
    found = M.verbs()
  elseif vim.tbl_contains({ 'pin', 'unpin', 'login', 'pause', 'resume' }, before[2]) then
    local err, result = rpc.wait('account/list', {}, 500)
    for _, each in ipairs(not err and result.accounts or {}) do
      found[#found + 1] = each.id
    end
  end
  return vim.tbl_filter(function(word)
    return vim.startswith(word, lead)
  end, found)
end

-- ---- the statusline -------------------------------------------------------------------------------------------

local seen = { text = '', asked_at = 0 }

--- For 'statusline': `%{v:lua.require'gemini_pool'.statusline()}`. The tightest quota, or why there is none; never waits.
function M.statusline()
  local now = os.time()
  if now - seen.asked_at >= M.config.refresh_s then
    seen.asked_at = now
    rpc.call('pool/quota', {}, function(err, quota)
      if err then
        seen.text = err.code == 'not_running' and 'gemini: off' or 'gemini: ?'
        return
      end
      local least
      for _, each in ipairs(quota.accounts or {}) do
        if each.fraction and (not least or each.fraction < least.fraction) then
          least = each
        end
      end
      seen.text = least and ('gemini: %s %s'):format(least.model, vim.trim(percent(least.fraction))) or 'gemini: ok'
      vim.cmd('redrawstatus')
    end)
  end
  return seen.text
end

return M
