/**
 * Folders as mkosi's own code reads them, to compare with our reading setting by setting.
 *
 * MKOSI names a checkout of mkosi; its Python runs in the tools tree of judges, offline.
 */
import { cpSync, existsSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { type ImageRecipe, loadRecipe, type Recipe } from '../src/recipe/recipe.ts'
import { mkosiName, ROWS, settingNamed } from '../src/recipe/schema.ts'
import { byName, summaryOf } from '../src/recipe/summary.ts'
import { JUDGES, type Judge } from './oracle.ts'

export type Json = Record<string, any>

/** One way of calling both. */
export interface Case {
  folder: string
  profiles?: readonly string[]
  /** As after `--set`. */
  set?: readonly string[]
}

/** Why a comparison cannot run, or false. */
export function missing(...names: readonly string[]): string | false {
  const wanted = [...new Set([...names, 'MKOSI'])].filter((name) => !process.env[name] || !existsSync(process.env[name]!))
  if (wanted.length > 0) return `${wanted.join(' and ')} must name a checkout`
  return JUDGES === undefined ? 'npm test prepares the tools' : false
}

/** A copy of the folder that both sides see under the same path. */
export function copyTo(judge: Judge, from: string): string {
  const folder = join(judge.dir, 'folder')
  // Of systemd's, sources are many and no matter.
  const wanted = (path: string): boolean =>
    !['src', 'test', 'man', 'docs', 'po', 'units', '.git'].some((name) => path === join(from, name))
  cpSync(from, folder, { recursive: true, verbatimSymlinks: true, filter: wanted })
  return folder
}

/** Runs Python with mkosi's modules; gives what it prints, as JSON. */
export async function runMkosi(judge: Judge, script: string, input: unknown = null): Promise<any> {
  const source = join(judge.dir, 'mkosi')
  if (!existsSync(source)) cpSync(process.env['MKOSI']!, source, { recursive: true })
  // The distribution is no matter of the machine's here, and so not of mkosi's either.
  const env = [`PYTHONPATH=${source}`, 'MKOSI_HOST_DISTRIBUTION=debian', 'MKOSI_HOST_RELEASE=testing']
  const { stdout } = await judge.run(['env', ...env, 'python3', '-c', script], { input: JSON.stringify(input) })
  return JSON.parse(stdout)
}

/** Every difference between the two that is not explained. */
export async function differencesIn(judge: Judge, cases: readonly Case[]): Promise<string[]> {
  const input = cases.map((one) => ({ folder: one.folder, options: optionsOf(one) }))
  const read: readonly Reading[] = await runMkosi(judge, READ, input)
  const differences: string[] = []
  for (const [i, one] of cases.entries()) differences.push(...(await compare(one, read[i]!)))
  return differences
}

type Reading = { images: Json[] } | { error: string }

const READ = `
import json, logging, os, sys
from pathlib import Path
from mkosi import config
import mkosi.resources

told = []
class Collect(logging.Handler):
    def emit(self, record): told.append(record.getMessage())
logging.getLogger().handlers = [Collect()]

def read(case):
    told.clear()
    os.chdir(case["folder"])
    try:
        argv = ["--directory", case["folder"], *case["options"], "summary"]
        _, _, images = config.parse_config(argv, resources=Path(mkosi.resources.__file__).parent)
        return {"images": [json.loads(config.dump_json(image.to_dict())) for image in images]}
    except SystemExit:
        return {"error": told[-1] if told else "the command line is wrong"}
    except Exception as crash:
        return {"error": repr(crash)}

print(json.dumps([read(case) for case in json.load(sys.stdin)]))
`

async function compare(one: Case, theirs: Reading): Promise<string[]> {
  const { folder, profiles = [], set = [] } = one
  const title = [profiles.join(), ...set].join(' ').trim() || 'no profile'
  const ours = await loadRecipe(folder, { profiles, set, anyValue: true, env: {} }).catch((error: Error) => error)
  if ('error' in theirs || ours instanceof Error) return refusals(ours, theirs).map((told) => `${title}: ${told}`)
  // Both put dependencies first; which of two that do not know each other comes first is nobody's business.
  const images = [...ours.subimages, ours]
  const byImage = new Map(theirs.images.map((image) => [String(image['Image']), image]))
  const [ourNames, theirNames] = [images.map(({ name }) => name), [...byImage.keys()]].map((names) => names.toSorted().join())
  if (ourNames !== theirNames) return [`${title}: images: ours ${ourNames}, mkosi’s ${theirNames}`]
  return images.flatMap((image) => differencesOf(image, byImage.get(image.name)!)).map((difference) => `${title}: ${difference}`)
}

/** What one of the two refuses is wrong when the other takes it, or does not miss the same file. mkosi tells the first problem. */
function refusals(ours: Recipe | Error, theirs: Reading): string[] {
  const [left, right] = [ours instanceof Error ? ours.message : 'taken', 'error' in theirs ? theirs.error : 'taken']
  const gone = /[^\s/]+ does not exist/.exec(right)?.[0] ?? ''
  return left !== 'taken' && right !== 'taken' && left.includes(gone) ? [] : [`ours: ${left}; mkosi’s: ${right}`]
}

function optionsOf({ profiles = [], set = [] }: Case): string[] {
  return [...profiles.map((name) => `--profile=${name}`), ...set.map(optionOf)]
}

/** `ImageVersion=7` as mkosi's command line has it. */
function optionOf(text: string): string {
  const [name, ...value] = text.split('=')
  const long = SPECIAL_OPTIONS[name!] ?? name!.replace(/(?<=[a-z])(?=[A-Z])/g, '-').toLowerCase()
  return `--${long}=${value.join('=')}`
}

const SPECIAL_OPTIONS: Readonly<Record<string, string>> = {
  Packages: 'package',
  InitrdProfiles: 'initrd-profile',
  InitrdPackages: 'initrd-package',
  Credentials: 'credential',
}

/** Where the two may differ, and why. Both values are made the same before they are compared. */
const EXPLAINED: Readonly<Record<string, { why: string; alike: (value: any, image: Json) => unknown }>> = {
  Seed: { why: 'mkosi draws it at random, ours follows from the image’s id', alike: () => 'a GUID' },
  SectorSize: { why: 'without one mkosi leaves it to systemd-repart, which takes 512', alike: (value) => value ?? 512 },
  RemoveFiles: {
    why: 'patterns count from the root with and without a slash in front; our built-in initrd has an order of its own',
    alike: (value: string[], { Image }) => {
      const patterns = value.map((pattern) => pattern.replace(/^\/*/, '/'))
      return Image === 'default-initrd' ? patterns.sort() : patterns
    },
  },
  KernelModules: {
    why: 'our built-in initrd names the same modules in an order of its own; what is left out comes after what it is left out of',
    alike: (value: string[], { Image }) => (Image === 'default-initrd' ? [...value].sort() : value),
  },
  Credentials: {
    why: 'their values are secret',
    alike: (value: Json[]) => value.map(({ Name, Path }) => ({ Name, Path })),
  },
  OutputDirectory: {
    why: 'mkosi writes among the recipe’s own files unless mkosi.output/ is there or it is told otherwise',
    alike: (value: string | null) => (value ?? 'mkosi.output').replace(/^.*\/(?=mkosi\.output$)/, ''),
  },
  RootPassword: { why: 'it is secret', alike: (value) => value?.[1] ?? null },
  ExtraTrees: {
    why: 'a target cannot leave the image: `..` is resolved when it is read',
    alike: (value: Json[]) => value.map(({ Source, Target }) => ({ Source, Target: Target && normalize(Target) })),
  },
  Initrds: {
    why: 'ours names the default initrd, mkosi the file it will be in',
    alike: (value: string[]) => value.map((file) => (/(^|\/)initrd$/.test(file) ? 'default' : file)),
  },
  Dependencies: {
    why: 'which images are made, and in which order, is compared by itself',
    alike: () => [],
  },
}

/** What mkosi tells of an image beside its settings. */
const NOT_SETTINGS = ['Image', 'Directory', 'Files', 'BuildSubdirectory']

function differencesOf(image: ImageRecipe, theirs: Json): string[] {
  const ours: Json = byName(summaryOf(image))
  return Object.entries(theirs).flatMap(([name, value]) => {
    const key = settingNamed(name)
    if (NOT_SETTINGS.includes(name)) return []
    if (key === undefined) return [`${image.name}: ${name} is no setting of ours`]
    if (ROWS[key]!.status.is !== 'supported') return []
    const alike = EXPLAINED[name]?.alike ?? ((same: unknown) => same)
    const left = alike(withoutBuiltin(ours[mkosiName(key)].value), theirs)
    const right = alike(withoutBuiltin(value), theirs)
    if (isDeepStrictEqual(left, right)) return []
    return [`${image.name}: ${name}: ours ${JSON.stringify(left)}, mkosi’s ${JSON.stringify(right)}`]
  })
}

const BUILTIN = fileURLToPath(new URL('../src/recipe/builtin', import.meta.url))

/** Files of the built-in configurations lie in different places. */
const withoutBuiltin = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value)
      .replaceAll(BUILTIN, '(built-in)')
      .replaceAll(/"[^"]*\/resources\/mkosi-/g, '"(built-in)/mkosi-'),
  )
