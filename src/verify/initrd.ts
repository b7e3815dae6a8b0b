/** The initrd of a UKI: it is systemd's, it can set up dm-verity, and it brings the IPE policy that the kernel is to enforce. */
import { formatSize } from '../base/size.ts'
import type { Anchor, InitrdFacts } from './facts.ts'
import { type Files, resolved, textOf } from './holes/files.ts'
import { type InitrdBudget, readInitrd } from './initrd-files.ts'
import { readPolicies } from './ipe-policies.ts'
import { checkLink, type Finding, type Link } from './link.ts'
import type { Held } from './sections.ts'

const MAX_SCRIPT_BYTES = 64 << 10
const PID_1 = /^usr\/lib\/systemd\/systemd$/

export type ReadInitrd = (section: Held, name: string) => Promise<InitrdFacts | undefined>
export type { InitrdBudget }

/** Reads initrds and judges each under the first name it is asked for by. */
export function readInitrdOnce(anchor: Anchor, budget: InitrdBudget, links: Link[]): ReadInitrd {
  const known = new Map<Held, Promise<InitrdFacts | undefined>>()
  return (section, name) => {
    const found =
      known.get(section) ?? checkLink(links, 'UKI', name, (finding) => checkInitrd(section.content, anchor, budget, finding))
    known.set(section, found)
    return found
  }
}

async function checkInitrd(content: Uint8Array, anchor: Anchor, budget: InitrdBudget, finding: Finding): Promise<InitrdFacts> {
  const { evidence } = finding
  const { files, members, unpackedBytes } = await readInitrd(content, budget)
  evidence(`${members} members, ${formatSize(unpackedBytes)}, ${files.entries.size} paths`)
  const systemdVersion = versionOf(files)
  checkFirstProgram(files, finding)
  if (systemdVersion !== undefined) evidence(`systemd ${systemdVersion}`)
  return { files, ...(systemdVersion === undefined ? {} : { systemdVersion }), ipePolicies: readPolicies(files, anchor) }
}

function checkFirstProgram(files: Files, { evidence, wrong }: Finding): void {
  const init = resolved(files.entries, 'init')
  const entry = init === undefined ? undefined : files.entries.get(init)
  if (entry?.type !== 'file' || (entry.mode & 0o111) === 0) {
    wrong('there is no /init that the kernel can start', 'bisque build makes an initrd with systemd')
    return
  }
  const becomes = PID_1.test(init!) ? init! : becomesOf(files, init!)
  if (becomes === undefined) {
    wrong(`/init is /${init}, not systemd: what it mounts is not known`, 'boot with an initrd of systemd')
    return
  }
  evidence(becomes === init ? `/init is /${init}` : `/init is a script that becomes /${becomes}`)
  const release = resolved(files.entries, 'etc/initrd-release')
  if (release === undefined || files.entries.get(release)?.type !== 'file')
    wrong('there is no /etc/initrd-release: systemd takes the initrd for the system itself', 'bisque build writes one')
  if (!files.entries.has('usr/lib/systemd/systemd-veritysetup'))
    wrong(
      'there is no systemd-veritysetup: nothing sets up dm-verity',
      'add the package systemd-cryptsetup, which has it, to the initrd',
    )
  else if (!files.entries.has('usr/lib/systemd/system-generators/systemd-veritysetup-generator'))
    wrong('there is no systemd-veritysetup-generator: nothing reads the root hash of the command line')
}

/** What a script becomes with its last command. What else it does is by whoever signed the UKI. */
function becomesOf(files: Files, path: string): string | undefined {
  const text = textOf(files, path, MAX_SCRIPT_BYTES) ?? ''
  const last = text
    .split('\n')
    .filter((line) => !/^\s*(?:#|$)/.test(line))
    .at(-1)
  const program = /^exec\s+\/(\S+)/.exec(last ?? '')?.[1]
  const real = text.startsWith('#!') && program !== undefined ? resolved(files.entries, program) : undefined
  return real !== undefined && PID_1.test(real) ? real : undefined
}

/** By the library that goes with it. */
function versionOf(files: Files): string | undefined {
  for (const path of files.entries.keys()) {
    const version = /^usr\/lib\/(?:[^/]+\/)?systemd\/libsystemd-(?:shared|core)-(\d+)[^/]*\.so$/.exec(path)?.[1]
    if (version !== undefined) return version
  }
  return undefined
}
