-- Replays a transcript with the plugin's own client: nvim --headless -u NONE -c 'luafile this' with PLAY=transcript.

local rpc = require('gemini_pool.rpc')
local script = vim.json.decode(table.concat(vim.fn.readfile(vim.env.PLAY), '\n'), { luanil = { object = true } })
local values, events = script.values, {}

local function fill(pattern)
  if type(pattern) == 'string' and values[pattern:sub(2)] ~= nil and pattern:sub(1, 1) == '$' then
    return values[pattern:sub(2)]
  elseif type(pattern) == 'table' then
    return next(pattern) and vim.tbl_map(fill, pattern) or pattern
  end
  return pattern
end

local function same(pattern, value, at)
  local wanted = fill(pattern)
  if type(wanted) == 'table' then
    assert(type(value) == 'table', at .. ': no table')
    for key, each in pairs(wanted) do
      same(each, value[key], at .. '.' .. key)
    end
  else
    assert(wanted == value, ('%s: %s instead of %s'):format(at, vim.inspect(value), vim.inspect(wanted)))
  end
end

local function judge(action, err, result)
  if action.error then
    assert(err, 'it succeeded')
    for key, wanted in pairs(action.error) do
      if key == 'hint' then
        assert(err.hint and err.hint ~= '', 'no hint')
      else
        same(wanted, err[key], 'error.' .. key)
      end
    end
  else
    assert(not err, vim.inspect(err))
    same(action.result or {}, result or {}, 'result')
  end
end

local begin

-- Starts an action; returns a function that waits for its end and judges it.
function begin(action)
  local out
  local function ended(err, result)
    out = { err, result }
  end
  local function waited()
    assert(vim.wait(15000, function() return out ~= nil end, 2), 'no answer to ' .. vim.inspect(action))
    judge(action, out[1], out[2])
  end
  if action.together then
    local all = vim.tbl_map(begin, action.together)
    return function()
      for _, wait in ipairs(all) do wait() end
    end
  elseif action.subscribe then
    rpc.subscribe(action.subscribe, function(event) events[#events + 1] = event end, ended)
    return waited
  elseif action.event then
    return function()
      assert(vim.wait(15000, function() return #events > 0 end, 2), 'no event')
      same(action.event, table.remove(events, 1), 'event')
    end
  elseif action.stream then
    local chunks = {}
    local params = vim.tbl_extend('force', fill(action.stream), { method = 'streamGenerateContent' })
    local handle = rpc.call('pool/generate', params, ended, function(value) chunks[#chunks + 1] = value end)
    return function()
      assert(vim.wait(15000, function() return #chunks >= #action.chunks end, 2), 'chunks are missing')
      if action.cancel then
        handle.cancel()
        assert(vim.wait(15000, function() return out ~= nil end, 2), 'not cancelled')
        assert(out[1] and out[1].code == 'cancelled', vim.inspect(out))
      else
        waited()
      end
      assert(#chunks == #action.chunks, 'too many chunks')
      for i, wanted in ipairs(action.chunks) do same(wanted, chunks[i], 'chunk ' .. i) end
    end
  end
  rpc.call(action.call, fill(action.params), ended)
  return waited
end

local ok, why = pcall(function()
  if vim.env.PLAY:find('absent') then
    rpc.connect_ms = 100
  end
  for _, action in ipairs(script.client) do
    begin(action)()
  end
  rpc.close()
end)
if not ok then
  io.stderr:write(tostring(why) .. '\n')
end
vim.cmd(ok and 'qall!' or 'cquit')
