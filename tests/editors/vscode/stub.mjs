// A stand-in for VS Code's API: what the extension shows is in `seen`, what a person answers comes from `answers`.
export const seen = { bars: [], commands: {}, providers: {}, said: [], failed: [], documents: [], opened: [], asked: [] }
export const answers = [] // functions of what was asked, in turn
const answered = async (question) => (seen.asked.push(await question), answers.shift()?.(await question))
export const window = {
  createStatusBarItem: () => (seen.bars.push({ show() {}, dispose() {} }), seen.bars.at(-1)),
  showInformationMessage: (text) => void seen.said.push(text),
  showErrorMessage: (text) => void seen.failed.push(text),
  showWarningMessage: answered,
  showQuickPick: answered,
  showInputBox: answered,
  showTextDocument: async (document) => void seen.documents.push(document.content),
  withProgress: (_, run) => run({}, token()),
}
export const workspace = {
  getConfiguration: () => ({ get: (_, fallback) => fallback }),
  openTextDocument: async (given) => given,
}
export const commands = { registerCommand: (name, run) => ((seen.commands[name] = run), { dispose() {} }) }
export const env = { remoteName: "ssh-remote", openExternal: async (uri) => void seen.opened.push(uri) }
export const lm = { registerLanguageModelChatProvider: (vendor, made) => ((seen.providers[vendor] = made), { dispose() {} }) }
export const Uri = { parse: (text) => text }
export const StatusBarAlignment = { Right: 2 }
export const ProgressLocation = { Notification: 15 }
export const LanguageModelChatToolMode = { Auto: 1, Required: 2 }
export const LanguageModelChatMessageRole = { User: 1, Assistant: 2 }
export class ThemeColor {}
export class LanguageModelTextPart { constructor(value) { this.value = value } }
export class LanguageModelToolCallPart { constructor(callId, name, input) { Object.assign(this, { callId, name, input }) } }
export class LanguageModelToolResultPart { constructor(callId, content) { Object.assign(this, { callId, content }) } }
export function token() {
  const waiting = []
  const made = { isCancellationRequested: false, onCancellationRequested: (run) => waiting.push(run) }
  return Object.assign(made, { cancel: () => ((made.isCancellationRequested = true), waiting.forEach((run) => run())) })
}
