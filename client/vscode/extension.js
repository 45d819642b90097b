// The extension in VS Code: commands, the status bar and the chat provider. What they do is in pool.js and chat.js.
// @ts-check
import * as vscode from "vscode"
import { Pool } from "../typescript/index.js"
import { answer, models } from "./chat.js"
import { accountItems, act, actionItems, explainText, login, quotaText, said, statusBar } from "./pool.js"

const { window } = vscode

/** @param {vscode.ExtensionContext} context */
export function activate(context) {
  const settings = vscode.workspace.getConfiguration("geminiPool")
  const pool = new Pool({ name: "vscode", connectMs: 500, socket: settings.get("socket") || undefined })
  const bar = window.createStatusBarItem("geminiPool.quota", vscode.StatusBarAlignment.Right, 50)
  bar.name = "gemini-pool"
  bar.command = "geminiPool.accounts"
  bar.show()

  async function refresh() {
    const { text, tooltip, state } = await statusBar(pool)
    bar.text = `$(sparkle) ${text}`
    bar.tooltip = tooltip
    bar.backgroundColor = state === "low" ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined
  }

  async function pickAccount() {
    return window.showQuickPick(accountItems(pool), { placeHolder: "Which account?", matchOnDetail: true })
  }

  /** @param {string} [account] */
  async function logIn(account) {
    account ??= await window.showInputBox({ prompt: "The account's id, of an old or a new one" })
    if (!account) return
    const id = account
    const options = { location: vscode.ProgressLocation.Notification, title: `Logging in ${id}`, cancellable: true }
    const line = await window.withProgress(options, (_, token) => login(pool, id, { ...dialogs, signal: signalOf(token) }))
    if (line) window.showInformationMessage(line)
  }

  /** @param {"pin" | "unpin"} action */
  async function pin(action) {
    const item = await pickAccount()
    if (item) window.showInformationMessage(await act(pool, item.label, action))
  }

  const commands = {
    async accounts() {
      const item = await pickAccount()
      const chosen = item && (await window.showQuickPick(actionItems(item), { placeHolder: item.label }))
      if (!item || !chosen) return
      if (chosen.action === "login") await logIn(item.label)
      else window.showInformationMessage(await act(pool, item.label, chosen.action))
    },
    quota: async () => show(await quotaText(pool)),
    async explain() {
      const items = (await models(pool)).map((/** @type {{ id: string }} */ { id }) => id)
      const model = await window.showQuickPick(items, { placeHolder: "Which model?" })
      if (model) await show(await explainText(pool, model))
    },
    login: () => logIn(),
    pin: () => pin("pin"),
    unpin: () => pin("unpin"),
  }
  for (const [name, run] of Object.entries(commands))
    context.subscriptions.push(vscode.commands.registerCommand(`geminiPool.${name}`, async () => {
      try {
        await run()
      } catch (error) {
        if (!gaveUp(error)) window.showErrorMessage(said(error))
      }
      await refresh()
    }))
  context.subscriptions.push(vscode.lm.registerLanguageModelChatProvider("gemini-pool", provider(pool)))
  const timer = setInterval(refresh, 1000 * Math.max(5, settings.get("refreshSeconds", 60)))
  context.subscriptions.push(bar, { dispose: () => (clearInterval(timer), pool.close()) })
  return refresh()
}

/** @param {any} error */
const gaveUp = (error) => error.code === "cancelled" || error.name === "AbortError"

/** @param {string} content */
const show = async (content) => window.showTextDocument(await vscode.workspace.openTextDocument({ content }), { preview: true })

/** @param {vscode.CancellationToken} token */
function signalOf(token) {
  const stop = new AbortController()
  if (token.isCancellationRequested) stop.abort()
  token.onCancellationRequested(() => stop.abort())
  return stop.signal
}

const dialogs = {
  remote: vscode.env.remoteName !== undefined,
  async client() {
    const items = [
      { label: "The OAuth client it had before", client: {} },
      { label: "An OAuth client of my own…", description: "its JSON file" },
      { label: "That of the Gemini CLI installed here", client: { use_gemini_cli: true } },
    ]
    const item = await window.showQuickPick(items, { placeHolder: "Log in with which OAuth client?", ignoreFocusOut: true })
    if (!item || item.client) return item?.client
    const [file] = (await window.showOpenDialog({ filters: { JSON: ["json"] } })) ?? []
    return file && { client_secrets: JSON.parse(new TextDecoder().decode(await vscode.workspace.fs.readFile(file))) }
  },
  /** @param {string} wording */
  accept: async (wording) => (await window.showWarningMessage(wording, { modal: true }, "I accept the risk")) !== undefined,
  /** @param {string} url */
  open: async (url) => vscode.env.openExternal(vscode.Uri.parse(url, true)),
  paste: async () => window.showInputBox({ prompt: "Paste the address that Google's page led to", ignoreFocusOut: true, password: true }),
}

/** @param {Pool} pool
 * @returns {vscode.LanguageModelChatProvider} */
const provider = (pool) => ({
  async provideLanguageModelChatInformation({ silent }) {
    try {
      return (await models(pool)).map((/** @type {any} */ { id, name, input, output }) => ({
        id, name, family: "gemini", version: id, maxInputTokens: input, maxOutputTokens: output, capabilities: { toolCalling: true },
      }))
    } catch (error) {
      if (!silent) window.showErrorMessage(said(error))
      return []
    }
  },
  async provideLanguageModelChatResponse(model, messages, { tools, toolMode }, progress, token) {
    const options = { tools, mustCall: toolMode === vscode.LanguageModelChatToolMode.Required, signal: signalOf(token) }
    try {
      for await (const part of answer(pool, model.id, messages.map(plain), options))
        if ("text" in part) progress.report(new vscode.LanguageModelTextPart(part.text))
        else if ("call" in part) progress.report(new vscode.LanguageModelToolCallPart(part.call.id, part.call.name, part.call.args))
    } catch (error) {
      if (!token.isCancellationRequested) throw new Error(said(error)) // with the hint: VS Code shows the message alone
    }
  },
  // Asked for often: an estimate, not a call to Google.
  provideTokenCount: async (_, text) => Math.ceil((typeof text === "string" ? text : plain(text).parts.map((part) => JSON.stringify(part)).join("")).length / 4),
})

/** A message of VS Code's as one of chat.js.
 * @param {vscode.LanguageModelChatRequestMessage} message
 * @returns {import("./chat.js").Message} */
function plain({ role, content }) {
  /** @type {import("./chat.js").Part[]} */
  const parts = []
  for (const part of content)
    if (part instanceof vscode.LanguageModelTextPart) parts.push({ text: part.value })
    else if (part instanceof vscode.LanguageModelToolCallPart) parts.push({ call: { id: part.callId, name: part.name, args: part.input } })
    else if (part instanceof vscode.LanguageModelToolResultPart) {
      const texts = part.content.filter((one) => one instanceof vscode.LanguageModelTextPart)
      parts.push({ result: { id: part.callId, text: texts.map((one) => one.value).join("") } })
    }
  return { role: role === vscode.LanguageModelChatMessageRole.Assistant ? "model" : "user", parts }
}
