if vim.g.loaded_gemini_pool then
  return
end
vim.g.loaded_gemini_pool = true

vim.api.nvim_create_user_command('GeminiPool', function(opts)
  require('gemini_pool').command(opts.fargs)
end, {
  nargs = '*',
  desc = 'Ask the gemini-pool daemon',
  complete = function(lead, line)
    return require('gemini_pool').complete(lead, line)
  end,
})
