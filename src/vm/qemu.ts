/**
 * The command lines of a virtual machine: QEMU with OVMF's Secure Boot firmware, and a software TPM beside it.
 *
 * Paths of firmware are those of Debian's packages inside the tools tree; all others are the same inside and outside.
 * QEMU connects to sockets this process listens on, so that neither has to wait for the other.
 */
import { Fault } from '../base/fault.ts'

const SECURE_BOOT_CODE = '/usr/share/OVMF/OVMF_CODE_4M.secboot.fd'
/** Built without Secure Boot: it knows no setup mode, so nobody enrols keys there. */
const PLAIN_CODE = '/usr/share/OVMF/OVMF_CODE_4M.fd'
/** The variable store of a machine fresh from the factory: no keys, hence in setup mode. */
export const FIRMWARE_VARIABLES = '/usr/share/OVMF/OVMF_VARS_4M.fd'

/**
 * Fastest of those tried when QEMU translates instructions itself: a richer processor makes programs use instructions
 * that are slow to translate. Debian's kernel and systemd need no more than this.
 */
const TRANSLATED_CPU = 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt'

export interface Machine {
  /** `tcg` translates instructions and runs anywhere; `kvm` uses the processor's virtualization. */
  accelerator: 'tcg' | 'kvm'
  cpu?: string
  cpus: number
  memoryBytes: number
  /** Firmware that enforces Secure Boot once it has keys, or one that knows nothing of it. */
  secureBoot: boolean
  /** The disk as it was baked; never written to where there is an overlay. */
  image: string
  /** A qcow2 file that takes all writes; without one, the image does. */
  overlay?: string
  /** This machine's own copy of the firmware's variables. */
  variables: string
  /** Sockets someone listens on already; `tpm` is that of swtpm, absent for a machine without. */
  sockets: { qmp: string; console: string; shell: string; tpm?: string }
  /** Strings handed to the guest in SMBIOS type 11: credentials, additions to the kernel's command line. */
  smbios: readonly string[]
}

// biome-ignore format: one option a line
export function qemuCommand(machine: Machine): string[] {
  const { accelerator, secureBoot, sockets } = machine
  const mebibytes = Math.floor(machine.memoryBytes / 2 ** 20)
  if (mebibytes < 256) throw new Fault('usage', `Cannot start a machine with ${mebibytes} MiB of memory: the firmware needs 256`)
  if (!Number.isInteger(machine.cpus) || machine.cpus < 1) throw new Fault('usage', `Cannot start a machine with ${machine.cpus} processors: expected a whole number`)
  return [
    'qemu-system-x86_64',
    '-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'none', '-nic', 'none',
    '-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    '-machine', 'q35,smm=on',
    '-accel', accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi',
    '-cpu', machine.cpu ?? (accelerator === 'kvm' ? 'host' : TRANSLATED_CPU),
    '-smp', `${machine.cpus}`,
    '-m', `${mebibytes}M`,
    ...(secureBoot ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : []),
    '-drive', `if=pflash,format=raw,readonly=on,file=${secureBoot ? SECURE_BOOT_CODE : PLAIN_CODE}`,
    '-drive', `if=pflash,format=raw,file=${escaped(machine.variables)}`,
    ...disk(machine),
    '-device', 'virtio-rng-pci',
    '-chardev', `socket,id=qmp,path=${escaped(sockets.qmp)}`, '-mon', 'chardev=qmp,mode=control',
    '-chardev', `socket,id=console,path=${escaped(sockets.console)}`, '-serial', 'chardev:console',
    '-chardev', `socket,id=shell,path=${escaped(sockets.shell)}`, '-serial', 'chardev:shell',
    ...(sockets.tpm ? ['-chardev', `socket,id=tpm,path=${escaped(sockets.tpm)}`, '-tpmdev', 'emulator,id=tpm0,chardev=tpm', '-device', 'tpm-crb,tpmdev=tpm0'] : []),
    ...machine.smbios.flatMap((value) => ['-smbios', `type=11,value=${escaped(value)}`]),
  ]
}

/** Ends by itself when QEMU hangs up. */
// biome-ignore format: one option a line
export const swtpmCommand = (stateFolder: string, socket: string): string[] => [
  'swtpm', 'socket', '--tpm2', '--terminate',
  '--tpmstate', `dir=${stateFolder}`,
  '--ctrl', `type=unixio,path=${socket}`,
  '--flags', 'startup-clear',
]

/** The image read-only below, the overlay above: named as nodes, so that no file name is looked up in the overlay's header. */
function disk({ image, overlay }: Machine): string[] {
  const cache = { direct: false, 'no-flush': true }
  const file = (filename: string) => ({ driver: 'file', filename, cache })
  const nodes = overlay
    ? [
        { 'node-name': 'image', driver: 'raw', 'read-only': true, cache, file: { ...file(image), locking: 'off' } },
        { 'node-name': 'disk', driver: 'qcow2', cache, file: file(overlay), backing: 'image', discard: 'unmap' },
      ]
    : // Whoever holds the disk may change it while the machine runs: QEMU must not lock it.
      [
        {
          'node-name': 'disk',
          driver: 'raw',
          cache,
          file: { ...file(image), locking: 'off', discard: 'unmap' },
          discard: 'unmap',
        },
      ]
  const blockdevs = nodes.flatMap((node) => ['-blockdev', JSON.stringify(node)])
  return [...blockdevs, '-device', 'virtio-blk-pci,drive=disk,bootindex=1']
}

/** QEMU's options are split at commas; a doubled one stands for itself. */
const escaped = (value: string) => value.replaceAll(',', ',,')
