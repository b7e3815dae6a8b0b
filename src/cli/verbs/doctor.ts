import { accessSync, constants, existsSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import { object } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { command, constant } from '@optique/core/primitives'
import { formatSize } from '../../base/size.ts'
import { examples } from '../options.ts'
import type { Run } from '../session.ts'

export const parser = command('doctor', object({ verb: constant('doctor') }), {
  brief: message`Say what this machine lacks`,
  description: message`Check what baking and booting need of this machine, and name the command that mends what is missing.`,
  footer: examples(['bisque doctor', 'check this machine']),
})

/** One thing checked. */
export interface Finding {
  what: string
  level: 'ok' | 'warning' | 'problem'
  found: string
  /** A command that mends it. */
  hint?: string
}

/** Below this, a bake of a small image may fill the disk. */
const ENOUGH_BYTES = 4 * 1024 ** 3

export const run: Run<{ verb: 'doctor' }> = async (_, session) => {
  const { hostProblems } = await import('../../run/namespace.ts')
  const findings: Finding[] = [node(), space(session.cache), kvm()]
  for (const { name, ok, detail, mend } of await hostProblems()) {
    findings.push({ what: name, level: ok ? 'ok' : 'problem', found: detail, ...(mend ? { hint: mend } : {}) })
  }
  const marks = { ok: 'ok', warning: 'note', problem: 'PROBLEM' }
  const width = Math.max(...findings.map(({ what }) => what.length))
  const lines = findings.flatMap(({ what, level, found, hint }) => [
    `${what.padEnd(width)}  ${marks[level].padEnd(7)}  ${found}`,
    ...(hint ? hint.split('\n').map((line) => `${' '.repeat(width + 11)}${line}`) : []),
  ])
  const bad = findings.some(({ level }) => level === 'problem')
  const { FAULTS } = await import('../../base/fault.ts')
  return { result: { healthy: !bad, findings }, text: lines.join('\n'), exitCode: bad ? FAULTS.host.exit : 0 }
}

function node(): Finding {
  const old = Number(process.versions.node.split('.')[0]) < 24
  const found = `${process.versions.node} (${process.execPath})`
  return old
    ? { what: 'Node', level: 'problem', found: `${found}; 24 is needed`, hint: 'npm rebuild node' }
    : { what: 'Node', level: 'ok', found }
}

function space(cache: string): Finding {
  let folder = cache
  while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder)
  const { bavail, bsize } = statfsSync(folder)
  const free = bavail * bsize
  const found = `${formatSize(free)} free in ${folder}`
  return free >= ENOUGH_BYTES
    ? { what: 'Disk', level: 'ok', found }
    : {
        what: 'Disk',
        level: 'warning',
        found: `${found}; a bake wants about ${formatSize(ENOUGH_BYTES)}`,
        hint: 'bisque cache prune',
      }
}

function kvm(): Finding {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    return { what: 'KVM', level: 'ok', found: '/dev/kvm' }
  } catch {
    return existsSync('/dev/kvm')
      ? {
          what: 'KVM',
          level: 'warning',
          found: 'no access to /dev/kvm; virtual machines are slow',
          hint: 'sudo usermod -aG kvm "$USER"',
        }
      : { what: 'KVM', level: 'warning', found: 'there is no /dev/kvm; virtual machines are emulated, about ten times slower' }
  }
}
