import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { MACHINES, oracle } from '../../test/oracle.ts'
import { readFirmwareKeys } from './firmware.ts'
import { startVm, type VmOptions } from './vm.ts'

const toolsTree = MACHINES ?? ''

/** A folder for temporary files of these tests alone, so that what is left behind can be seen. */
const scratch = mkdtempSync(join(tmpdir(), 'bisque-'))
process.env['TMPDIR'] = scratch
after(() => rmSync(scratch, { recursive: true, force: true }))

/** A disk with nothing on it: the firmware starts, says so, and waits. */
function emptyDisk(dir: string): string {
  const image = join(dir, 'empty, disk.raw')
  writeFileSync(image, '')
  truncateSync(image, 1 << 20)
  return image
}

const small = (dir: string): VmOptions => ({
  image: emptyDisk(dir),
  toolsTree,
  accelerator: 'tcg',
  memoryBytes: 512 << 20,
  cpus: 1,
})

oracle('qemu-system-x86_64', 'startVm() starts the firmware, and kill() leaves no process and no file', async (t, judge) => {
  const before = leftovers()
  const options = small(judge.dir)
  const vm = await startVm({ ...options, signal: t.signal })
  const processes = descendants(vm.pid)
  assert.ok(processes.length >= 2)
  assert.match(vm.qmp.version, /^\d+\.\d+\.\d+$/)
  assert.deepEqual((await vm.qmp.execute('query-status')) as object, { running: true, status: 'running' })
  assert.deepEqual(await vm.qmp.execute('query-tpm-models'), ['tpm-crb', 'tpm-tis'])
  const nodes = (await vm.qmp.execute('query-named-block-nodes', { flat: true })) as {
    'node-name': string
    ro: boolean
    image: { 'virtual-size': number }
  }[]
  const sizes = Object.fromEntries(nodes.map((node) => [node['node-name'], [node.image['virtual-size'], node.ro]]))
  assert.deepEqual(
    [sizes['image'], sizes['disk']],
    [
      [1 << 20, true],
      [8 * 2 ** 30, false],
    ],
  )
  await vm.console.waitFor(/BdsDxe: /, 60_000)
  await vm.kill()
  await vm.ended
  assert.deepEqual(processes.filter(isAlive), [])
  assert.deepEqual(leftovers(), before)
  assert.ok(readFileSync(options.image).every((byte) => byte === 0))
})

oracle('qemu-system-x86_64', 'startVm() keeps the state of a machine where asked to, and only there', async (_t, judge) => {
  const keep = join(judge.dir, 'kept')
  const vm = await startVm({ ...small(judge.dir), keep })
  await vm.console.waitFor(/BdsDxe: /, 60_000)
  await vm.kill()
  assert.deepEqual(readdirSync(keep).sort(), ['disk.qcow2', 'image.sha256', 'tpm', 'variables.fd'])
  assert.ok(readdirSync(join(keep, 'tpm')).includes('tpm2-00.permall'))
  const keys = await readFirmwareKeys(join(keep, 'variables.fd'))
  assert.deepEqual(keys, { setupMode: true, secureBoot: false })

  const again = await startVm({ ...small(judge.dir), keep })
  await again.kill()
  const other = { ...small(judge.dir), keep }
  writeFileSync(other.image, 'another image')
  await assert.rejects(startVm(other), { code: 'usage', hint: `rm -r ${keep}`, message: /it was started from another image/ })
})

oracle('qemu-system-x86_64', 'startVm() ends the machine when its signal says so', async (_t, judge) => {
  const controller = new AbortController()
  const vm = await startVm({ ...small(judge.dir), signal: controller.signal })
  const processes = descendants(vm.pid)
  controller.abort()
  await vm.ended
  assert.deepEqual(processes.filter(isAlive), [])
  await assert.rejects(startVm({ ...small(judge.dir), signal: controller.signal }), { name: 'AbortError' })
})

oracle('qemu-system-x86_64', 'startVm() leaves no process even when its own process is killed', async (_t, judge) => {
  const program = `
    import { startVm } from ${JSON.stringify(join(import.meta.dirname, 'vm.ts'))}
    const vm = await startVm(${JSON.stringify(small(judge.dir))})
    process.stdout.write('started\\n')
    await vm.ended`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
    env: { ...process.env, TMPDIR: judge.dir },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  const processes = descendants(child.pid!)
  assert.ok(processes.some((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('qemu-system')))
  child.kill('SIGKILL')
  for (const deadline = Date.now() + 5000; processes.some(isAlive) && Date.now() < deadline; ) await sleep(20)
  assert.deepEqual(processes.filter(isAlive), [])
})

oracle(
  'qemu-system-x86_64',
  'startVm() runs the firmware with KVM where that works, and without where it does not',
  async (_t, judge) => {
    const { accelerator: _, ...either } = small(judge.dir)
    await using vm = await startVm({ ...either, secureBoot: false, tpm: false })
    await vm.console.waitFor(/BdsDxe: /, 60_000)
  },
)

oracle('qemu-system-x86_64', 'startVm() says what QEMU said when it cannot start, and leaves nothing', async (_t, judge) => {
  const before = leftovers()
  await assert.rejects(startVm({ ...small(judge.dir), cpu: 'abacus' }), {
    name: 'Fault',
    code: 'tool',
    message: /^Cannot start a machine: QEMU ended with exit code 1\n.*unable to find CPU model 'abacus'/s,
  })
  assert.deepEqual(leftovers(), before)
})

test('startVm() refuses an image or a tools tree that is not there', async () => {
  const before = leftovers()
  await assert.rejects(startVm({ image: '/nowhere.raw', toolsTree }), { code: 'missing', message: /Cannot start \/nowhere.raw/ })
  const image = process.execPath
  await assert.rejects(startVm({ image, toolsTree: '/nowhere' }), { code: 'missing', message: /tools tree \/nowhere holds no/ })
  assert.deepEqual(leftovers(), before)
})

const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith('bisque-vm-'))

const isAlive = (pid: number) => existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(statusOf(pid))

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    return ''
  }
}

/** A process and all that came from it. */
function descendants(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
  return [pid, ...children.flatMap(descendants)]
}
