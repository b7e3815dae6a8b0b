/** One target in a process of its own, so that its memory is its own: `node one-target.ts NAME EXECUTIONS SEED`. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { sha256 } from '../../src/base/digest.ts'
import { corpusOf, Finding, runCampaign } from './campaign.ts'
import { TARGETS } from './targets.ts'

const [name = '', executions = '0', seed = '1', keep = ''] = process.argv.slice(2)
const say = (message: object) => process.send?.(message)
try {
  const findings = await runCampaign(name, TARGETS[name]!, {
    executions: Number(executions),
    seed: Number(seed),
    onProgress: (done) => say({ done }),
  })
  // Small ones only: the corpus is part of the repository.
  const small = findings.kept.filter((input) => input.length <= 4096).slice(0, Number(keep))
  for (const input of small) writeFileSync(`${corpusOf(name)}/${sha256(input).slice(0, 12)}`, input)
  const peakBytes = Number(/VmHWM:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024
  const { kept: _, ...figures } = findings
  say({ ...figures, peakBytes })
} catch (error) {
  if (!(error instanceof Finding)) throw error
  const path = `${corpusOf(name)}/crash-${sha256(error.input).slice(0, 12)}`
  mkdirSync(corpusOf(name), { recursive: true })
  writeFileSync(path, error.input)
  say({ crash: error.message, path })
  process.exitCode = 1
}
process.disconnect?.()
