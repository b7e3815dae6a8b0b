/**
 * Random folders in mkosi's format, read by both.
 *
 * MKOSI names a checkout of mkosi. Values are ones that both take; what is tried is who wins, what is reset, what is passed on
 * to other images, and what conditions see.
 */
import assert from 'node:assert/strict'
import { cpSync, existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { type ImageRecipe, loadRecipe, type Recipe } from '../src/recipe/recipe.ts'
import { ROWS, settingNamed } from '../src/recipe/schema.ts'
import { byName, summaryOf } from '../src/recipe/summary.ts'
import { JUDGES, type Judge, judgeIn } from './oracle.ts'
import { folders, type Sample, writeSample } from './random-folders.ts'

type Json = Record<string, any>

const why = (): string | false => {
  if (!existsSync(process.env['MKOSI'] ?? '')) return 'MKOSI must name a checkout'
  return JUDGES === undefined ? 'npm test prepares the tools' : false
}

test('random folders read as mkosi reads them', { skip: why() }, async () => {
  using judge = judgeIn()
  cpSync(process.env['MKOSI']!, join(judge.dir, 'mkosi'), { recursive: true })
  for (const sample of fc.sample(folders, { numRuns: Number(process.env['RUNS'] ?? 40), seed: 20260701 })) {
    const folder = join(judge.dir, 'folder')
    rmSync(folder, { recursive: true, force: true })
    writeSample(folder, sample)
    const { profiles, set } = sample
    const theirs = await mkosiImages(judge, folder, sample)
    const ours = await loadRecipe(folder, { profiles, set, anyValue: true, env: {} }).catch((error: Error) => error)
    assert.deepEqual(differences(ours, theirs, folder), [], JSON.stringify(sample, undefined, 1))
  }
})

async function mkosiImages(judge: Judge, folder: string, { profiles, set }: Sample): Promise<Json[] | undefined> {
  const options = [...profiles.map((name) => `--profile=${name}`), ...set.map(optionOf)]
  const python = ['env', `PYTHONPATH=${join(judge.dir, 'mkosi')}`, 'python3', '-m', 'mkosi']
  const outcome = await judge.run([...python, `--directory=${folder}`, '--json', ...options, 'summary'], { allowFailure: true })
  return outcome.exitCode === 0 ? (JSON.parse(outcome.stdout) as { Images: Json[] }).Images : undefined
}

function optionOf(text: string): string {
  const equals = text.indexOf('=')
  const long = text.slice(0, equals).replace(/(?<=[a-z])(?=[A-Z])/g, '-')
  return `--${long.toLowerCase().replace(/packages$/, 'package')}${text.slice(equals)}`
}

function differences(ours: Recipe | Error, theirs: Json[] | undefined, folder: string): string[] {
  if (ours instanceof Error || theirs === undefined) {
    return ours instanceof Error && theirs === undefined ? [] : [`ours ${ours instanceof Error ? ours.message : 'taken'}`]
  }
  const images = [...ours.subimages, ours]
  const byImage = new Map(theirs.map((image) => [String(image['Image']), image]))
  const names = [images.map(({ name }) => name), [...byImage.keys()]].map((some) => some.toSorted().join())
  if (names[0] !== names[1]) return [`images: ours ${names[0]}, theirs ${names[1]}`]
  return images.flatMap((image) => imageDifferences(image, byImage.get(image.name)!, folder))
}

/** Settings in which the two differ for a reason that another test has. */
const ELSEWHERE = ['Seed', 'SectorSize', 'Dependencies', 'Initrds']

function imageDifferences(image: ImageRecipe, theirs: Json, folder: string): string[] {
  const ours: Json = byName(summaryOf(image))
  return Object.entries(theirs).flatMap(([name, value]) => {
    const key = settingNamed(name)
    if (key === undefined || ROWS[key]!.status.is !== 'supported' || ELSEWHERE.includes(name)) return []
    const [x, y] = [ours[name]?.value ?? null, value].map((one) => alike(name, one, image.name, folder))
    return isDeepStrictEqual(x, y) ? [] : [`${image.name}: ${name}: ours ${JSON.stringify(x)}, theirs ${JSON.stringify(y)}`]
  })
}

/** The built-in initrd of each has an order and files of its own. */
function alike(name: string, value: any, image: string, folder: string): unknown {
  if (name === 'OutputDirectory') return value ?? join(folder, 'mkosi.output')
  if (name === 'ExtraTrees' || name === 'PostInstallationScripts') {
    return value.filter((one: any) => !/\/mkosi-initrd\//.test(one.Source ?? one))
  }
  if (image === 'default-initrd' && ['RemoveFiles', 'KernelModules'].includes(name)) {
    return value.map((one: string) => one.replace(/^\/*(?=usr|etc|var|a)/, '/')).sort()
  }
  return value
}
