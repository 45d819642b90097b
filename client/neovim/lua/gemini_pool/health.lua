-- :checkhealth gemini_pool

local M = {}
local health = vim.health or require('health')
local start, ok, warn, bad =
  health.start or health.report_start, health.ok or health.report_ok, health.warn or health.report_warn, health.error or health.report_error

function M.check()
  local rpc = require('gemini_pool.rpc')
  start('gemini-pool')
  local err, info = rpc.wait('daemon/info', {}, 4000)
  if err then
    return bad(err.message, err.hint and { err.hint } or nil)
  end
  ok(('the daemon %s answers at %s'):format(info.version or '', rpc.socket_path()))
  local failed, found = rpc.wait('account/list', {}, 4000)
  if failed then
    return bad(failed.message, failed.hint and { failed.hint } or nil)
  end
  if #(found.accounts or {}) == 0 then
    warn('there are no accounts yet', { 'gemini-pool account add' })
  end
  for _, account in ipairs(found.accounts or {}) do
    local text = ('%s (%s): %s'):format(account.id, account.backend, account.state)
    if account.state == 'ready' then
      ok(text)
    else
      warn(text, account.hint and account.hint ~= '' and { account.hint } or nil)
    end
  end
end

return M
