import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

/** Who may import whom. A folder sees itself, `base`, and what its row lists; left may import right, never back. */
// biome-ignore format: table
const MAY_IMPORT: Record<string, readonly string[]> = {
  base:     [],
  formats:  [],
  store:    ['formats'],
  run:      ['formats'],
  tree:     ['formats', 'run'],
  signing:  ['formats', 'run', 'store'],
  recipe:   ['formats', 'run', 'store', 'tree', 'signing'],
  packages: ['formats', 'run', 'store', 'tree', 'signing'],
  image:    ['formats', 'run', 'store', 'tree', 'signing'],
  publish:  ['formats', 'run', 'store', 'tree', 'signing'],
  update:   ['formats', 'run', 'store', 'tree', 'signing'],
  verify:   ['formats', 'run', 'store', 'tree', 'signing', 'image'], // hashes blocks as `image` does
  vm:       ['formats', 'run', 'store', 'tree', 'signing'],
  attack:   ['formats', 'run', 'store', 'tree', 'signing', 'image', 'vm'], // forges images, and boots them
  build:    ['formats', 'run', 'store', 'tree', 'signing', 'recipe', 'packages', 'image', 'publish', 'update', 'verify', 'vm'],
  cli:      ['build', 'attack', 'formats', 'run', 'store', 'tree', 'signing', 'recipe', 'packages', 'image', 'publish', 'update', 'verify', 'vm'],
  service:  ['build', 'formats', 'run', 'store', 'tree', 'signing', 'recipe', 'packages', 'image', 'publish', 'update', 'verify', 'vm'],
}

/** Modules with side effects, and the only folders that may touch them. */
// biome-ignore format: table
const MAY_TOUCH: Record<string, readonly string[]> = {
  'node:child_process':  ['run'],
  'node:worker_threads': ['run'],
  koffi:                 ['run'],
  'node:http':           ['service'],
  'node:net':            ['run', 'vm', 'service'],
  undici:                ['packages', 'publish', 'signing'],
}

/** Pure: bytes and values in, bytes and values out. */
const IMPURE = ['node:fs', 'node:os', 'node:process', 'node:net', 'node:http', 'node:timers']
const IMPURE_CODE = /\b(?:process\.(?:env|cwd|argv|stdout)|Date\.now\(|new Date\(\)|Math\.random\(|randomBytes\(|randomUUID\()/

const sources = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .map((file) => `src/${file}`)

const importsOf = (text: string) =>
  [...text.matchAll(/^(?:import|export)\b[^'"]*?from '([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm)].map(
    (m) => m[1] ?? m[2] ?? m[3]!,
  )

const folderOf = (file: string) => (file.split('/').length === 2 ? undefined : file.split('/')[1]!)

test('imports point downwards', () => {
  const wrong: string[] = []
  for (const file of sources) {
    const folder = folderOf(file)
    if (folder === undefined) continue // main.ts and index.ts sit at the top
    for (const spec of importsOf(readFileSync(file, 'utf8'))) {
      const target = /^(?:\.\.\/)+([\w-]+)\//.exec(spec)?.[1]
      const inside = target === undefined || target === folder || existsSync(`src/${folder}/${target}`)
      const allowed = inside || target === 'base' || MAY_IMPORT[folder]?.includes(target)
      const owners = MAY_TOUCH[spec.replace('/promises', '')]
      if (!allowed || (owners && !owners.includes(folder))) wrong.push(`${file} imports ${spec}`)
    }
  }
  assert.deepEqual(wrong, [])
})

test('base and formats know no files, clock, environment or chance', () => {
  const wrong: string[] = []
  for (const file of sources) {
    const folder = folderOf(file)
    if (folder !== 'formats' && folder !== 'base') continue
    const text = readFileSync(file, 'utf8')
    for (const spec of importsOf(text)) if (IMPURE.includes(spec.replace('/promises', ''))) wrong.push(`${file} imports ${spec}`)
    const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    const found = IMPURE_CODE.exec(code)
    if (found) wrong.push(`${file} uses ${found[0]}`)
  }
  assert.deepEqual(wrong, [])
})

test('only the edge reads argv and the environment or prints', () => {
  const wrong: string[] = []
  for (const file of sources) {
    const folder = folderOf(file)
    if (folder === undefined || folder === 'cli') continue
    const code = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    const found = /\bprocess\.(?:argv|stdout\.write|stderr\.write)|\bconsole\.\w+\(/.exec(code)
    if (found) wrong.push(`${file} uses ${found[0]}`)
  }
  assert.deepEqual(wrong, [])
})

test('every folder has its row in the import table', () => {
  const folders = new Set(sources.map(folderOf).filter((f) => f !== undefined))
  assert.deepEqual(
    [...folders].filter((f) => !(f in MAY_IMPORT)),
    [],
  )
})
