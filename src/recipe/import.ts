/**
 * Importing a recipe's module: `recipe.ts` runs as it is, wherever it lies, with `import … from 'bisque'` meaning this very code.
 */
import { readFileSync, statSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Fault } from '../base/fault.ts'

const INDEX = new URL(import.meta.url.endsWith('.ts') ? '../index.ts' : '../index.js', import.meta.url).href

let hooked = false

/** Teaches Node what `bisque` is, and that a recipe is a TypeScript module even where no package.json says so. */
function hook(): void {
  if (hooked) return
  hooked = true
  registerHooks({
    resolve(specifier, context, next) {
      if (specifier === 'bisque') return { url: INDEX, shortCircuit: true }
      const found = next(specifier, context)
      const typescript = /^file:.*\.ts(\?.*)?$/.test(found.url) && !found.url.includes('/node_modules/')
      return typescript ? { ...found, format: 'module-typescript' } : found
    },
  })
}

/** The default export of the module at `file`. */
export async function importDefault(file: string): Promise<unknown> {
  hook()
  const url = pathToFileURL(file)
  // Node caches modules by URL: an edited recipe is another module.
  url.searchParams.set('t', String(statSync(file).mtimeMs))
  let module: Record<string, unknown>
  try {
    module = (await import(url.href)) as Record<string, unknown>
  } catch (error) {
    throw faultOf(error, file)
  }
  if (!('default' in module)) {
    throw new Fault('recipe', `Cannot read recipe: ${file} exports no default`, {
      hint: 'write: export default defineRecipe({ … })',
    })
  }
  return module['default']
}

function faultOf(error: unknown, file: string): Fault {
  if (error instanceof Fault) return error
  const message = error instanceof Error ? error.message : String(error)
  const stack = error instanceof Error ? (error.stack ?? '') : ''
  const place = placeIn(stack, file) ?? (message.includes(file) ? undefined : relative('.', file))
  return new Fault('recipe', `Cannot read recipe: ${place ? `${place}: ` : ''}${firstLine(message)}`, { cause: error })
}

/** `file:line:column` of the first mention of a file outside of Bisque and Node in a stack. */
function placeIn(stack: string, file: string): string | undefined {
  const own = fileURLToPath(new URL('..', import.meta.url))
  for (const match of stack.matchAll(/(?:file:\/\/)?(\/[^\s()?:]+\.[cm]?[jt]s)(?:\?[^:\s)]*)?:(\d+)(?::(\d+))?/g)) {
    const path = decodeURI(match[1]!)
    if (path !== file && (path.startsWith(own) || path.includes('/node_modules/'))) continue
    return `${relative('.', path)}:${match[2]}${match[3] ? `:${match[3]}` : columnOf(path, Number(match[2]), stack)}`
  }
  return undefined
}

/** A syntax error's stack begins with the source line and carets below what is wrong with it. */
function columnOf(path: string, line: number, stack: string): string {
  const lines = stack.split('\n')
  const carets = lines.findIndex((text) => /^\s*\^+\s*$/.test(text))
  if (carets < 1) return ''
  const shownAt =
    readFileSync(path, 'utf8')
      .split('\n')
      [line - 1]?.indexOf(lines[carets - 1]!.trim()) ?? -1
  if (shownAt < 0) return ''
  const indent = lines[carets - 1]!.search(/\S/)
  return `:${shownAt + lines[carets]!.indexOf('^') - indent + 1}`
}

/** Node repeats the source and where it was required from; the first line says it. */
const firstLine = (message: string): string =>
  message
    .split('\n')
    .find((line) => line.trim() !== '')
    ?.trim() ?? 'it threw nothing'
