// Makes the folder that `vsce package` packs: `node pack.js FOLDER`. The client lies beside the extension there, not above.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import path from "node:path"
import { fileURLToPath } from "node:url"

const here = path.dirname(fileURLToPath(import.meta.url))
const folder = process.argv[2]
mkdirSync(path.join(folder, "client"), { recursive: true })
for (const name of ["index.js", "rpc.js", "gateway.js"]) copyFileSync(path.join(here, "../typescript", name), path.join(folder, "client", name))
writeFileSync(path.join(folder, "client/package.json"), '{ "type": "module" }\n')
for (const name of ["extension.js", "pool.js", "chat.js"])
  writeFileSync(path.join(folder, name), readFileSync(path.join(here, name), "utf8").replaceAll('"../typescript/', '"./client/'))
for (const name of ["package.json", "README.md"]) copyFileSync(path.join(here, name), path.join(folder, name))
copyFileSync(path.join(here, "../../LICENSE"), path.join(folder, "LICENSE"))
