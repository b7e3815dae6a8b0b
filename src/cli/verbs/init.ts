import { constants, copyFileSync, existsSync, readdirSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { withDefault } from '@optique/core/modifiers'
import { argument, command, constant, option } from '@optique/core/primitives'
import { string } from '@optique/core/valueparser'
import { examples, folder } from '../options.ts'
import type { Run } from '../session.ts'

export const parser = command(
  'init',
  object({
    verb: constant('init'),
    directory: withDefault(argument(folder(), { description: message`Folder for the recipe; the current one by default.` }), '.'),
    template: withDefault(
      option('--template', string({ metavar: 'NAME' }), { description: message`What to start from; minimal by default.` }),
      'minimal',
    ),
  }),
  {
    brief: message`Write a new recipe that bakes at once`,
    description: message`Write recipe.ts and what belongs beside it. Nothing that exists is overwritten.`,
    footer: examples(['bisque init my-os', 'a recipe in a new folder'], ['cd my-os && bisque build', 'bake it']),
  },
)

export interface InitOptions {
  directory: string
  template: string
}

const TEMPLATES = fileURLToPath(new URL('../../../templates', import.meta.url))
/** npm drops or renames files of these names in packages, so templates keep them under others. */
const RENAMED: Readonly<Record<string, string>> = { gitignore: '.gitignore', 'tsconfig.template.json': 'tsconfig.json' }

export const run: Run<InitOptions> = async ({ directory, template }) => {
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
