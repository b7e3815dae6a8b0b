import { constants, copyFileSync, existsSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { multiple, withDefault } from '@optique/core/modifiers'
import { argument, command, constant, option } from '@optique/core/primitives'
import { string } from '@optique/core/valueparser'
import { examples, folder, valued } from '../options.ts'
import type { Run, Session } from '../session.ts'

export const parser = command(
  'init',
  object({
    verb: constant('init'),
    directory: withDefault(argument(folder(), { description: message`Folder for the recipe; the current one by default.` }), '.'),
    template: withDefault(
      option('--template', string({ metavar: 'NAME' }), { description: message`What to start from; minimal by default.` }),
      'minimal',
    ),
    from: valued('--from', folder(), message`Write what a folder in mkosi's format says, instead of a template.`),
    profiles: multiple(
      option('--profile', string({ metavar: 'NAME' }), {
        description: message`With --from: a profile to make part of the recipe.`,
      }),
    ),
    set: multiple(
      option('--set', string({ metavar: 'KEY=VALUE' }), {
        description: message`With --from: a setting to make part of the recipe.`,
      }),
    ),
  }),
  {
    brief: message`Write a new recipe that bakes at once`,
    description: message`Write recipe.ts and what belongs beside it. Nothing that exists is overwritten.`,
    footer: examples(
      ['bisque init my-os', 'a recipe in a new folder'],
      ['cd my-os && bisque build', 'bake it'],
      ['bisque init --from particleos my-os --profile desktop', 'a typed recipe of what a folder of mkosi makes'],
    ),
  },
)

export interface InitOptions {
  directory: string
  template: string
  from?: string | undefined
  profiles: readonly string[]
  set: readonly string[]
}

const TEMPLATES = fileURLToPath(new URL('../../../templates', import.meta.url))
/** npm drops or renames files of these names in packages, so templates keep them under others. */
const RENAMED: Readonly<Record<string, string>> = { gitignore: '.gitignore', 'tsconfig.template.json': 'tsconfig.json' }

export const run: Run<InitOptions> = async (options, session) => {
  if (options.from !== undefined) return initFrom({ ...options, from: options.from }, session)
  const { directory, template } = options
  const { Fault } = await import('../../base/fault.ts')
  const known = readdirSync(TEMPLATES)
  if (!known.includes(template)) {
    const { nearest } = await import('../../base/nearest.ts')
    const near = nearest(template, known)
    throw new Fault('missing', `Cannot write recipe: there is no template "${template}"; templates: ${known.join(', ')}`, {
      hint: `bisque init ${directory} --template ${near ?? 'minimal'}`,
    })
  }
  const files = readdirSync(join(TEMPLATES, template)).map((name) => ({
    from: join(TEMPLATES, template, name),
    to: join(directory, RENAMED[name] ?? name),
  }))
  const there = files.filter(({ to }) => existsSync(to)).map(({ to }) => to)
  // A folder may well have a .gitignore; a recipe it must not have.
  const recipe = there.find((file) => basename(file) === 'recipe.ts')
  if (recipe !== undefined) {
    throw new Fault('usage', `Cannot write recipe: ${recipe} would be overwritten`, { hint: 'bisque init NEW-FOLDER' })
  }
  const { makeFolder } = await import('../../store/store.ts')
  await makeFolder(directory)
  const fresh = files.filter(({ to }) => !there.includes(to))
  for (const { from, to } of fresh) copyFileSync(from, to, constants.COPYFILE_EXCL)
  const written = fresh.map(({ to }) => to)
  const here = relative('.', directory) === ''
  const text = [
    ...written.map((file) => `Wrote ${file}`),
    ...there.map((file) => `Kept ${file}`),
    '',
    'Bake it:',
    `  bisque build${here ? '' : ` ${directory}`}`,
  ].join('\n')
  return { result: { written, kept: there }, text }
}

/** Writes the recipe.ts that makes what a folder of mkosi makes. */
async function initFrom({ directory, from, profiles, set }: InitOptions & { from: string }, session: Session) {
  const { Fault } = await import('../../base/fault.ts')
  const { loadRecipe } = await import('../../recipe/recipe.ts')
  const { writeRecipe } = await import('../../recipe/write.ts')
  const { makeFolder } = await import('../../store/store.ts')
  const file = join(directory, 'recipe.ts')
  if (existsSync(file)) {
    throw new Fault('usage', `Cannot write recipe: ${file} would be overwritten`, {
      hint: `bisque init --from ${from} NEW-FOLDER`,
    })
  }
  const recipe = await loadRecipe(from, { profiles, set, env: session.environment })
  if (resolve(directory) === recipe.directory) {
    throw new Fault('usage', `Cannot write recipe: ${from} has one already, and a folder has one`, {
      hint: `bisque init --from ${from} NEW-FOLDER`,
    })
  }
  const { text: code, notes } = writeRecipe(recipe, resolve(directory))
  await makeFolder(directory)
  writeFileSync(file, code, { flag: 'wx' })
  const text = [`Wrote ${file}`, ...notes.map((note) => `  ${note}`), '', 'Bake it:', `  bisque build ${directory}`].join('\n')
  return { result: { written: [file], kept: [], notes }, text }
}
