/** What tests of the types of settings ask: what text and TypeScript values become, and how they are refused. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { Fault } from '../src/base/fault.ts'
import type { Type } from '../src/recipe/type.ts'

type AnyType = Type<unknown, unknown, unknown>

export const place = { directory: '/recipe', env: { HOME: '/home/ada' } }

export const reads = (of: AnyType, text: string, value: unknown) => assert.deepEqual(of.parse(text, place), value)
export const takes = (of: AnyType, input: unknown, value: unknown) => assert.deepEqual(of.check(input, place), value)

/** The message of the Fault that `body` throws. */
export function message(body: () => unknown): string {
  try {
    body()
  } catch (error) {
    assert.ok(error instanceof Fault)
    assert.equal(error.code, 'recipe')
    return error.message
  }
  return assert.fail('was accepted')
}
export const refuses = (of: AnyType, input: unknown) => message(() => of.check(input, place))
export const refusesText = (of: AnyType, text: string) => message(() => of.parse(text, place))

/** A folder with files, gone after the test. */
export function folder(t: TestContext, files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-type-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    writeFileSync(join(directory, name), text)
  }
  return directory
}
