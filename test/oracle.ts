import { existsSync } from 'node:fs'
import { type TestContext, test } from 'node:test'

/**
 * A test judged by the real tool of the field rather than by our own reader.
 * Skipped, visibly, where the tool is not installed; REQUIRE_ORACLES=1 makes that a failure.
 */
export function oracle(tool: string, name: string, body: (t: TestContext) => void | Promise<void>): void {
  const found = (process.env['PATH'] ?? '').split(':').some((dir) => existsSync(`${dir}/${tool}`))
  const skip = !found && !process.env['REQUIRE_ORACLES'] ? `${tool} is not installed` : false
  test(`[${tool}] ${name}`, { skip }, body)
}
