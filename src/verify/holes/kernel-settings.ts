/** sysctl.d and tmpfiles: settings of the running kernel that open what the image closes. */
import type { Finding } from '../link.ts'
import type { SystemFacts } from './facts.ts'
import { configFiles, configFolders, shown } from './files.ts'

// biome-ignore format: table
const OPENINGS: readonly [key: string, when: (value: string) => boolean, why: string][] = [
  ['kernel.core_pattern',               (v) => v.startsWith('|') && !/^\|\/usr\//.test(v), 'runs a program that is not of /usr with the rights of root'],
  ['kernel.modprobe',                   (v) => v !== '' && !/^\/(?:usr\/)?s?bin\//.test(v), 'runs a program that is not of /usr to load modules'],
  ['kernel.poweroff_cmd',               (v) => !/^\/(?:usr\/)?s?bin\//.test(v), 'runs a program that is not of /usr'],
  ['fs.protected_symlinks',             (v) => v === '0', 'follows links that others put into /tmp'],
  ['fs.protected_hardlinks',            (v) => v === '0', 'lets anyone link to files of others'],
  ['fs.suid_dumpable',                  (v) => v === '1', 'writes the memory of setuid programs where others read it'],
  ['kernel.unprivileged_bpf_disabled',  (v) => v === '0', 'lets anyone load programs into the kernel'],
  ['net.core.bpf_jit_harden',           (v) => v === '0', 'compiles programs of anyone without guarding against sprays'],
  ['kernel.kptr_restrict',              (v) => v === '0', 'tells everyone where the kernel is'],
  ['kernel.perf_event_paranoid',        (v) => Number(v) < 0, 'lets anyone watch the kernel'],
  ['kernel.yama.ptrace_scope',          (v) => v === '0', 'lets any program change any other of its user'],
  ['kernel.randomize_va_space',         (v) => v === '0', 'loads programs where everyone expects them'],
  ['kernel.sysrq',                      (v) => v === '1', 'lets whoever is at the keyboard do all that the kernel knows'],
]
/** Defaults of systems that people debug on, which distributions ship: not the image's doing. */
const DISTRIBUTION = /\/(?:10-|50-default|99-protect|50-coredump|README)/

export function checkKernelSettings({ files }: SystemFacts, { evidence, wrong }: Finding): void {
  if (!files) return
  const settings = new Map<string, { value: string; path: string }>()
  const configs = configFiles(files, configFolders('sysctl.d'), '.conf')
  for (const { path, text } of configs) {
    for (const line of text.split('\n')) {
      const match = /^\s*-?([\w./*-]+)\s*=\s*(.*?)\s*$/.exec(line)
      if (match) settings.set(match[1]!.replaceAll('/', '.'), { value: match[2]!, path })
    }
  }
  for (const [key, when, why] of OPENINGS) {
    const found = settings.get(key)
    if (found && when(found.value) && !DISTRIBUTION.test(found.path))
      wrong(`${shown(files, found.path)}: ${key} = ${found.value.slice(0, 80)} ${why}`, `take ${key} out of /${found.path}`)
  }
  evidence(`${settings.size} settings in ${configs.length} files of sysctl.d`)
}
