import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Machine, qemuCommand, swtpmCommand } from './qemu.ts'

const machine: Machine = {
  accelerator: 'tcg',
  secureBoot: true,
  cpus: 2,
  memoryBytes: 2 ** 31,
  image: '/run/image',
  overlay: '/run/state/disk.qcow2',
  variables: '/run/state/variables.fd',
  sockets: { qmp: '/run/q', console: '/run/c', shell: '/run/s', tpm: '/run/t' },
  smbios: ['io.systemd.credential:a=b,c', 'two'],
}

/** Every value given to an option. */
const valuesOf = (option: string, argv: readonly string[]) => argv.filter((_, i) => argv[i - 1] === option)

test('qemuCommand() composes a machine whose firmware protects its variables', () => {
  const argv = qemuCommand(machine)
  assert.deepEqual(valuesOf('-machine', argv), ['q35,smm=on'])
  assert.ok(valuesOf('-global', argv).includes('driver=cfi.pflash01,property=secure,value=on'))
  assert.deepEqual(valuesOf('-drive', argv), [
    'if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd',
    'if=pflash,format=raw,file=/run/state/variables.fd',
  ])
  assert.deepEqual(valuesOf('-nic', argv), ['none'])
  assert.deepEqual(valuesOf('-m', argv), ['2048M'])
})

test('qemuCommand() takes firmware that knows no Secure Boot when asked to', () => {
  const argv = qemuCommand({ ...machine, secureBoot: false })
  assert.equal(valuesOf('-drive', argv)[0], 'if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd')
  assert.ok(!argv.some((value) => value.includes('property=secure')))
})

test('qemuCommand() never opens the image for writing', () => {
  const nodes = valuesOf('-blockdev', qemuCommand(machine)).map((node) => JSON.parse(node))
  const image = nodes.find((node) => node.file.filename === '/run/image')
  assert.equal(image['read-only'], true)
  assert.equal(nodes.find((node) => node['node-name'] === 'disk').backing, image['node-name'])
})

test('qemuCommand() has the image take the writes of a machine without an overlay', () => {
  const { overlay: _, ...own } = machine
  const nodes = valuesOf('-blockdev', qemuCommand(own)).map((node) => JSON.parse(node))
  assert.equal(nodes.length, 1)
  assert.equal(nodes[0].file.filename, '/run/image')
  assert.notEqual(nodes[0]['read-only'], true)
})

test('qemuCommand() doubles commas, so that no value can add options', () => {
  assert.deepEqual(valuesOf('-smbios', qemuCommand(machine)), ['type=11,value=io.systemd.credential:a=b,,c', 'type=11,value=two'])
  const odd = qemuCommand({ ...machine, variables: '/a,readonly=on' })
  assert.ok(odd.includes('if=pflash,format=raw,file=/a,,readonly=on'))
})

test('qemuCommand() leaves out the TPM of a machine without, and takes the host’s processor under KVM', () => {
  const { tpm: _, ...sockets } = machine.sockets
  const argv = qemuCommand({ ...machine, accelerator: 'kvm', sockets })
  assert.deepEqual(valuesOf('-tpmdev', argv), [])
  assert.deepEqual(valuesOf('-cpu', argv), ['host'])
  assert.deepEqual(valuesOf('-accel', argv), ['kvm'])
  assert.deepEqual(valuesOf('-cpu', qemuCommand({ ...machine, cpu: 'max' })), ['max'])
})

test('qemuCommand() refuses memory and processors no machine can have', () => {
  assert.throws(() => qemuCommand({ ...machine, memoryBytes: 1 << 20 }), {
    name: 'Fault',
    code: 'usage',
    message: /1 MiB of memory/,
  })
  assert.throws(() => qemuCommand({ ...machine, cpus: 0.5 }), { name: 'Fault', code: 'usage', message: /0.5 processors/ })
})

test('swtpmCommand() ends with QEMU', () => {
  assert.ok(swtpmCommand('/run/state/tpm', '/run/t').includes('--terminate'))
})
