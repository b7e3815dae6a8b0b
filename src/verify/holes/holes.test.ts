/** Each hole by itself, in systems of a few files: what is found, how it is named, and what is not taken for one. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { testKeys } from '../../../test/keys.ts'
import { crypt } from '../../formats/sha512-crypt.ts'
import { parentOf } from '../../tree/tree.ts'
import { checkLink, type Finding, type Link } from '../link.ts'
import { checkAccounts } from './accounts.ts'
import { checkBounding } from './capabilities.ts'
import { checkCommandLines, OPENINGS } from './command-line.ts'
import type { SystemFacts } from './facts.ts'
import { configFiles, type FileEntry, type Files, filesOf, resolved } from './files.ts'
import { checkImagePolicies } from './image-policy.ts'
import { isSet, type Kernel, readKernel } from './kernel.ts'
import { checkIpeKernel, checkKexec, checkKeyrings, checkLockdown, checkRootHashKernel } from './kernel-config.ts'
import { checkModules } from './kernel-modules.ts'
import { checkKernelSettings } from './kernel-settings.ts'
import { checkLogins } from './logins.ts'
import { checkModes, checkPrivileged, formatCapability } from './modes.ts'
import { checkIdentity, checkSecrets } from './secrets.ts'
import { checkAnchors } from './trust-anchors.ts'
import { checkUpdates, fingerprints } from './updates.ts'

type Spec = string | Uint8Array | (Partial<FileEntry> & { text?: string })

/** Files by path; a text stands for a file of root that all may read. */
function system(specs: Readonly<Record<string, Spec>>, name = ''): Files {
  const entries = new Map<string, FileEntry>()
  const contents = new Map<string, Uint8Array>()
  for (const [path, spec] of Object.entries(specs)) {
    const given = typeof spec === 'string' || spec instanceof Uint8Array ? { text: spec } : spec
    const bytes = Buffer.from(given.text ?? '')
    contents.set(path, bytes)
    const { text: _, ...rest } = given
    entries.set(path, { type: 'file', mode: 0o644, uid: 0, gid: 0, sizeBytes: bytes.length, ...rest })
    for (let at = parentOf(path); at !== '' && !entries.has(at); at = parentOf(at))
      entries.set(at, { type: 'directory', mode: 0o755, uid: 0, gid: 0, sizeBytes: 0 })
  }
  return filesOf(name, entries, (path) => contents.get(path))
}

const link = (target: string): Spec => ({ type: 'symlink', mode: 0o777, target })

const CONFIG: Readonly<Record<string, string>> = {
  ...{ SECURITY_IPE: 'y', IPE_PROP_DM_VERITY_SIGNATURE: 'y', IPE_POLICY_SIG_PLATFORM_KEYRING: 'y' },
  ...{ INTEGRITY_PLATFORM_KEYRING: 'y', LOAD_UEFI_KEYS: 'y', DM_VERITY_VERIFY_ROOTHASH_SIG: 'y' },
  ...{ DM_VERITY_VERIFY_ROOTHASH_SIG_PLATFORM_KEYRING: 'y', SECURITY_LOCKDOWN_LSM: 'y', LOCK_DOWN_IN_EFI_SECURE_BOOT: 'y' },
  ...{ MODULES: 'y', MODULE_SIG: 'y', KEXEC: 'y', KEXEC_FILE: 'y', KEXEC_SIG: 'y', LSM: 'landlock,lockdown,yama,bpf,ipe' },
}

const kernel = (change: Record<string, string | undefined> = {}): Kernel => ({
  version: '6.12',
  source: 'a test',
  value: (option) => (option in change ? change[option] : (CONFIG[option] ?? 'n')),
  problems: [],
})

function facts(specs: Readonly<Record<string, Spec>>, change: Partial<SystemFacts> & { cmdline?: string } = {}): SystemFacts {
  const { cmdline = 'quiet', ...rest } = change
  return {
    ...{ files: system(specs), initrds: [], profiles: [{ name: 'a.efi', commandLine: cmdline }], kernels: [kernel()] },
    ...{ trusted: [], signed: true, secureBoot: true, ipe: true },
    ...rest,
  }
}

type Check = (facts: SystemFacts, finding: Finding) => void | Promise<void>

async function linkOf(check: Check, given: SystemFacts): Promise<Link> {
  const links: Link[] = []
  await checkLink(links, 'system', 'x', (finding) => check(given, finding))
  return links[0]!
}

async function finds(check: Check, given: SystemFacts, problem: RegExp): Promise<void> {
  const found = await linkOf(check, given)
  assert.match(found.problem ?? `nothing, but ${found.evidence}`, problem)
  assert.ok(found.hint, 'a hole comes with a hint')
}

async function holds(check: Check, given: SystemFacts, evidence = /./): Promise<void> {
  const found = await linkOf(check, given)
  assert.equal(found.problem, undefined)
  assert.match(found.evidence, evidence)
}

test('a kernel that lacks what the chain rests on is named with the option and what follows', async () => {
  const without = (option: string, value = 'n') => facts({}, { kernels: [kernel({ [option]: value })] })
  for (const check of [checkKeyrings, checkRootHashKernel, checkIpeKernel, checkLockdown, checkKexec])
    await holds(check, facts({}))
  await finds(checkKeyrings, without('LOAD_UEFI_KEYS'), /^CONFIG_LOAD_UEFI_KEYS is not set in 6\.12: the certificates/)
  await finds(
    checkKeyrings,
    facts({}, { kernels: [kernel({ INTEGRITY_PLATFORM_KEYRING: undefined })] }),
    /^not known: CONFIG_INTEGRITY_PLATFORM_KEYRING/,
  )
  await finds(checkRootHashKernel, without('DM_VERITY_VERIFY_ROOTHASH_SIG'), /does not know signatures of root hashes/)
  await finds(
    checkRootHashKernel,
    without('DM_VERITY_VERIFY_ROOTHASH_SIG_PLATFORM_KEYRING'),
    /by a certificate of db is not taken/,
  )
  await finds(checkIpeKernel, without('SECURITY_IPE'), /it has no IPE/)
  await finds(checkIpeKernel, without('LSM', 'lockdown,yama'), /IPE does not start/)
  await finds(
    checkIpeKernel,
    facts({}, { cmdline: 'lsm=lockdown,yama' }),
    /a\.efi: IPE does not start, the list .* is lockdown,yama/,
  )
  await holds(checkIpeKernel, facts({}, { ipe: false, kernels: [kernel({ SECURITY_IPE: 'n' })] }), /no policy/)
  await finds(checkLockdown, without('LOCK_DOWN_IN_EFI_SECURE_BOOT'), /Secure Boot does not lock the kernel down/)
  await finds(checkLockdown, facts({}, { cmdline: 'lsm=ipe' }), /lockdown does not start/)
  const unlocked = kernel({ LOCK_DOWN_IN_EFI_SECURE_BOOT: 'n' })
  await holds(checkLockdown, facts({}, { kernels: [unlocked], cmdline: 'lockdown=integrity' }))
  await finds(checkKexec, facts({}, { kernels: [unlocked] }), /kernels that nobody signed/)
})

test('checkModules() finds a module without a signature, in whatever it is compressed, and a kernel that insists on none', async () => {
  const signed = Buffer.concat([Buffer.from('\x7fELF'), Buffer.from('~Module signature appended~\n')])
  const path = 'usr/lib/modules/6.12/kernel/a.ko'
  await holds(
    checkModules,
    facts({ [path]: signed, [`${path}.gz`]: gzipSync(signed), [`${path}.zst`]: zstdCompressSync(signed) }),
    /^3 of 3/,
  )
  await finds(
    checkModules,
    facts({ [`${path}.gz`]: gzipSync(signed.subarray(0, 20)) }),
    /without a signature: \/usr\/lib\/modules\/6\.12\/kernel\/a\.ko\.gz/,
  )
  await finds(checkModules, facts({ [`${path}.zst`]: 'no zstd at all' }), /without a signature/)
  const open = kernel({ LOCK_DOWN_IN_EFI_SECURE_BOOT: 'n' })
  await finds(checkModules, facts({}, { kernels: [open] }), /loads modules that nobody signed/)
  await holds(checkModules, facts({}, { kernels: [open], cmdline: 'module.sig_enforce' }), /the command line insists/)
})

test('readKernel() knows a kernel by its configuration, and believes its code more', async () => {
  const words = ['ipe.success_audit', 'dmverity_signature=TRUE', 'Kernel is locked down from %s', 'module.sig_enforce']
  const code = Buffer.from(`\x7fELF\0${words.join('\0')}\0landlock,lockdown,yama,bpf,ipe\0.platform\0UEFI:db\0`, 'latin1')
  const image = zboot(zstdCompressSync(code))
  const config = (text: string) => system({ 'usr/lib/modules/6.12/config': text })
  const alone = await readKernel('6.12', image, system({}))
  assert.equal(alone.value('SECURITY_IPE'), 'y')
  assert.equal(alone.value('SECONDARY_TRUSTED_KEYRING'), 'n')
  assert.equal(alone.value('LSM'), 'landlock,lockdown,yama,bpf,ipe')
  assert.equal(isSet(alone, 'DM_VERITY_VERIFY_ROOTHASH_SIG'), undefined)
  const said = await readKernel(
    '6.12',
    image,
    config('CONFIG_SECURITY_IPE=y\nCONFIG_LSM="lockdown"\n# CONFIG_MODULE_SIG is not set\n'),
  )
  assert.match(said.problems.join('\n'), /CONFIG_MODULE_SIG=n, the kernel has been built with it/)
  assert.match(said.problems.join('\n'), /CONFIG_LSM="lockdown", the kernel has "landlock,/)
  assert.match(
    (await readKernel('6.12', image, config('# Linux/x86 5.10.1 Kernel Configuration\n'))).problems[0]!,
    /is of kernel 5\.10\.1/,
  )
  const unknown = await readKernel('6.12', Buffer.from('who knows'), system({}))
  assert.match(unknown.source, /^not known: .*Cannot decompress the kernel/)
  assert.equal(isSet(unknown, 'SECURITY_IPE'), undefined)
  const embedded = Buffer.concat([code, Buffer.from('IKCFG_ST'), gzipSync('CONFIG_KEXEC_SIG=y\n'), Buffer.from('IKCFG_ED')])
  assert.equal((await readKernel('6.12', embedded, system({}))).value('KEXEC_SIG'), 'y')
})

/** An EFI zboot image, as arm64 has them. */
function zboot(payload: Uint8Array): Buffer {
  const head = Buffer.alloc(64)
  head.write('MZ\0\0zimg', 'latin1')
  head.writeUInt32LE(64, 8)
  head.writeUInt32LE(payload.length, 12)
  return Buffer.concat([head, payload])
}

test('readKernel() refuses a kernel that would grow without end', async () => {
  const bomb = zboot(zstdCompressSync(Buffer.alloc(193 << 20)))
  assert.match((await readKernel('6.12', bomb, undefined)).source, /Cannot decompress the kernel/)
})

test('checkModes() finds what everyone may write, and devices', async () => {
  await holds(
    checkModes,
    facts({ 'usr/tmp': { type: 'directory', mode: 0o1777 }, 'usr/l': link('x'), 'usr/b': 'x' }),
    /none writable/,
  )
  await finds(checkModes, facts({ 'usr/bin/a': { mode: 0o757 } }), /everyone may write \/usr\/bin\/a/)
  await finds(checkModes, facts({ 'usr/d': { type: 'directory', mode: 0o777 } }), /everyone may write \/usr\/d/)
  await finds(checkModes, facts({ 'usr/lib/null': { type: 'character', mode: 0o666 } }), /device nodes.*\/usr\/lib\/null/)
  await holds(checkModes, facts({}, { initrds: [system({ 'dev/console': { type: 'character', mode: 0o600 } }, 'initrd')] }))
})

test('checkPrivileged() knows what distributions ship setuid, and nothing else', async () => {
  const rooted = { mode: 0o4755 }
  await holds(checkPrivileged, facts({ 'usr/bin/su': rooted, 'usr/bin/chage': { mode: 0o2755, gid: 42 } }), /chage, su/)
  await finds(checkPrivileged, facts({ 'usr/bin/bash': rooted }), /\/usr\/bin\/bash \(setuid root\)/)
  await finds(checkPrivileged, facts({ 'usr/share/su': rooted }), /\/usr\/share\/su \(setuid root\)/)
  await finds(checkPrivileged, facts({ 'usr/bin/su': { mode: 0o4777 } }), /\/usr\/bin\/su/)
  const database = { 'usr/lib/sysimage/dpkg/info/login.list': '/.\n/bin/su\n' }
  await holds(checkPrivileged, facts({ ...database, 'usr/bin/su': rooted }))
  await finds(checkPrivileged, facts({ ...database, 'usr/bin/sudo': rooted }), /\/usr\/bin\/sudo \(setuid root, of no package\)/)
  const capability = (...bits: number[]) => {
    const bytes = Buffer.alloc(20)
    bytes.writeUInt32LE(0x0200_0001, 0)
    for (const bit of bits) bytes.writeUInt32LE(bytes.readUInt32LE(4 + (bit >> 5) * 8) | (1 << (bit & 31)), 4 + (bit >> 5) * 8)
    return { xattrs: new Map([['security.capability', bytes]]) }
  }
  assert.equal(formatCapability(capability(13, 33).xattrs.get('security.capability')!), 'cap_net_raw,cap_mac_admin=ep')
  await holds(checkPrivileged, facts({ 'usr/bin/ping': { mode: 0o755, ...capability(13) } }))
  await finds(checkPrivileged, facts({ 'usr/bin/ping': { mode: 0o755, ...capability(13, 21) } }), /cap_net_raw,cap_sys_admin=ep/)
  await finds(checkPrivileged, facts({ 'usr/bin/perl': { mode: 0o755, ...capability(7) } }), /perl \(cap_setuid=ep\)/)
})

test('checkAccounts() finds accounts without a password, with a known one, and roots by other names', async () => {
  const shadow = (hash: string) => facts({ 'usr/share/factory/etc/shadow': `root:${hash}:1::::::\n` })
  await holds(checkAccounts, shadow('!*'))
  await holds(checkAccounts, shadow(crypt('2iPh9!vQr7', 'salt')), /root has a password that was not guessed/)
  await finds(checkAccounts, shadow(''), /root has no password, in \/usr\/share\/factory\/etc\/shadow/)
  await finds(checkAccounts, shadow(crypt('root', 'salt')), /root has the well-known password "root"/)
  await finds(checkAccounts, shadow('abJnggxhB/yWI'), /kept in a form that is no secret/)
  await finds(
    checkAccounts,
    facts({ 'etc/passwd': 'root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n' }),
    /toor is root by another name/,
  )
  await finds(checkAccounts, facts({ 'etc/passwd': 'eve::1000:1000::/:/bin/sh\n' }), /eve has no password/)
  const store = 'usr/lib/credstore/passwd'
  await holds(checkAccounts, facts({ [`${store}.hashed-password.root`]: '!*' }))
  await finds(checkAccounts, facts({ [`${store}.plaintext-password.root`]: 'x' }), /everybody can read, in \/usr\/lib\/credstore/)
  await finds(checkAccounts, facts({ [`${store}.hashed-password.root`]: '' }), /root has no password/)
  await finds(
    checkAccounts,
    facts({}, { initrds: [system({ 'etc/shadow': 'root::1::::::\n' }, 'initrd')] }),
    /\/etc\/shadow of the initrd/,
  )
  const credential = 'systemd.set_credential=passwd.plaintext-password.root:x'
  await finds(checkAccounts, facts({}, { cmdline: credential }), /a\.efi sets the password of root on its command line/)
})

test('checkLogins() finds shells that ask for nothing', async () => {
  const unit = 'usr/lib/systemd/system'
  const getty = { [`${unit}/getty@.service`]: "[Service]\nExecStart=-/sbin/agetty -o '-p -- \\\\u' --noclear - $TERM\n" }
  await holds(checkLogins, facts(getty), /ask for a password/)
  const dropIn = (text: string) => facts({ ...getty, [`${unit}/getty@.service.d/a.conf`]: text })
  await finds(
    checkLogins,
    dropIn('[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root - $TERM\n'),
    /getty@\.service logs in without/,
  )
  const shell = { [`${unit}/debug-shell.service`]: '[Service]\nExecStart=/bin/sh\n' }
  await holds(checkLogins, facts(shell))
  await finds(
    checkLogins,
    facts({ ...shell, [`${unit}/sysinit.target.wants/debug-shell.service`]: link('../debug-shell.service') }),
    /debug-shell\.service is enabled/,
  )
  await finds(
    checkLogins,
    facts({ 'usr/lib/systemd/system-preset/1.preset': 'enable debug-shell.service\n' }),
    /enables debug-shell/,
  )
  await finds(
    checkLogins,
    facts({ [`${unit}/emergency.service`]: '[Service]\nEnvironment=SYSTEMD_SULOGIN_FORCE=1\n' }),
    /SYSTEMD_SULOGIN_FORCE/,
  )
  await finds(
    checkLogins,
    facts({ 'usr/share/factory/etc/ssh/sshd_config': 'PermitRootLogin yes\n' }),
    /root may log in over the network/,
  )
  await finds(checkLogins, facts({ 'usr/lib/credstore/agetty.autologin': 'root' }), /agetty\.autologin logs in without/)
  await finds(checkLogins, facts({}, { cmdline: 'systemd.debug_shell' }), /a\.efi starts a shell of root/)
  await finds(checkLogins, facts({}, { cmdline: 'systemd.debug_shell=tty9' }), /a\.efi starts a shell of root/)
  await holds(checkLogins, facts({}, { cmdline: 'systemd.debug_shell=no' }))
})

/** A word for every row of the table. */
const OPEN = `init=/bin/sh rdinit=/x systemd.allow_userspace_verity=1 systemd.verity=no dm_verity.require_signatures=0
systemd.verity_usr_options=x,ignore-corruption systemd.verity_root_options=ignore-corruption module.sig_enforce=0 efi=nosoftreserve,noruntime
noefi security=yama apparmor=0 selinux=0 enforcing=0 mitigations=off iomem=relaxed rd.break rd.shell systemd.run=/x
systemd.run_success_action=exit systemd.wants=debug-shell.service systemd.mask=bisque-ipe.service systemd.setenv=LD_PRELOAD=/x
systemd.set_credential=fstab.extra:x systemd.set_credential_binary=sysctl.extra:eA== systemd.crash_shell systemd.break=pre-basic
systemd.unit=rescue.target rescue emergency single initrd=/x dm_mod.create=x initcall_blacklist=x efivar_ssdt=x
kgdboc=ttyS0 kgdbwait ima_appraise=off iommu=off intel_iommu=off amd_iommu=off sysctl.kernel.modprobe=/x
sysctl.kernel.core_pattern=|/x systemd.unit=debug.target`

test('checkCommandLines() finds words that open what is closed', async () => {
  await holds(
    checkCommandLines,
    facts({}, { cmdline: 'usrhash=00 root=tmpfs init=/usr/lib/systemd/systemd console=ttyS0 mitigations=auto' }),
  )
  const words = OPEN.split(/\s+/)
  for (const word of words) {
    const key = new RegExp(`^a\\.efi: ${word.replace(/=.*/s, '').replaceAll('.', '\\.')}\\b`)
    await finds(checkCommandLines, facts({}, { cmdline: `quiet ${word}` }), key)
  }
  const tried = new Set(words.map((word) => word.replace(/=.*/s, '')))
  assert.deepEqual(
    OPENINGS.map(({ key }) => key).filter((key) => !tried.has(key)),
    [],
    'words nobody tried',
  )
  await holds(
    checkCommandLines,
    facts({}, { cmdline: 'efi=nosoftreserve systemd.verity_usr_options=ignore-corruptions rd.emergency=reboot' }),
  )
  await finds(checkCommandLines, facts({}, { cmdline: 'quiet "init=/bin/a b"' }), /starts another first program/)
})

test('checkImagePolicies() finds policies that take what nobody signed', async () => {
  const line = (policy: string) => facts({}, { cmdline: `systemd.image_policy=${policy}` })
  await holds(checkImagePolicies, facts({}), /none but the defaults/)
  await holds(checkImagePolicies, line('usr=signed+absent:root=encrypted:=absent'))
  await finds(checkImagePolicies, line('usr=verity+signed+unprotected:root=encrypted'), /takes an unprotected usr/)
  await finds(checkImagePolicies, line('*'), /takes everything/)
  const service = (text: string) => facts({ 'usr/lib/systemd/system/systemd-sysext.service': `[Service]\n${text}\n` })
  await holds(checkImagePolicies, service('ExecStart=systemd-sysext refresh'))
  await finds(
    checkImagePolicies,
    service('ExecStart=systemd-sysext refresh --image-policy=root=unprotected:usr=signed'),
    /systemd-sysext\.service takes an unprotected root/,
  )
  await finds(
    checkImagePolicies,
    service('ExtensionImagePolicy=*'),
    /ExtensionImagePolicy= of systemd-sysext\.service takes everything/,
  )
})

test('checkAnchors() finds certificates that the chain does not know', async () => {
  const { directory, signers } = await testKeys()
  const pem = readFileSync(`${directory}/verity.crt`, 'utf8')
  const files = { 'usr/lib/verity.d/own.crt': pem }
  await holds(checkAnchors, facts(files, { trusted: [signers.verity.certificate] }), /\/usr\/lib\/verity\.d\/own\.crt is CN=/)
  await finds(checkAnchors, facts(files, { trusted: [signers.db.certificate] }), /own\.crt lets CN=.* sign images/)
  await finds(checkAnchors, facts({ 'etc/verity.d/x.crt': 'no certificate' }), /lets somebody who cannot be read/)
})

test('checkSecrets() and checkIdentity() find what every machine would share', async () => {
  const body = `${'QUJD'.repeat(16)}\n`.repeat(3)
  const key = `-----BEGIN PRIVATE KEY-----\n${body}-----END PRIVATE KEY-----\n`
  await holds(checkSecrets, facts({ 'usr/bin/ssh-keygen': `\0\x7fELF -----BEGIN OPENSSH PRIVATE KEY-----\n${'x'.repeat(200)}` }))
  await holds(checkSecrets, facts({ 'usr/share/a.py': `if '-----BEGIN PRIVATE KEY-----' in text: pass\n${'x'.repeat(200)}` }))
  await finds(
    checkSecrets,
    facts({ 'usr/share/factory/etc/ssh/ssh_host_rsa_key': key.replaceAll('PRIVATE', 'OPENSSH PRIVATE') }),
    /ssh_host_rsa_key/,
  )
  await finds(checkSecrets, facts({ 'usr/lib/a.pem': `# mine\n${key}` }), /private keys .*\/usr\/lib\/a\.pem/)
  await holds(checkIdentity, facts({ 'usr/share/factory/etc/machine-id': 'uninitialized\n' }))
  await finds(checkIdentity, facts({ 'etc/machine-id': `${'ab'.repeat(16)}\n` }), /machine-id is set: every machine is the same/)
  await finds(checkIdentity, facts({ 'var/lib/systemd/random-seed': 'x' }), /random-seed comes with the image/)
})

test('checkBounding() wants IPE to be safe from root', async () => {
  const conf = 'usr/lib/systemd/system.conf.d/ipe.conf'
  const bounding = (value: string) => facts({ [conf]: `[Manager]\nCapabilityBoundingSet=${value}\n` })
  await holds(checkBounding, bounding('~CAP_MAC_ADMIN'))
  await holds(checkBounding, bounding('CAP_CHOWN CAP_KILL'))
  await finds(checkBounding, bounding('~CAP_SYS_BOOT'), /root may switch IPE off/)
  await finds(checkBounding, facts({}), /PID 1, which nothing limits/)
  const initrd = system({ [conf]: '[Manager]\nCapabilityBoundingSet=~CAP_MAC_ADMIN\n' }, 'initrd')
  await holds(checkBounding, facts({}, { initrds: [initrd] }), /of the initrd: CapabilityBoundingSet/)
  await finds(checkBounding, facts({}, { initrds: [initrd, system({}, 'initrd')] }), /root may switch IPE off/)
  await holds(checkBounding, facts({}, { ipe: false }), /no IPE/)
})

test('checkKernelSettings() finds settings that open the kernel', async () => {
  await holds(
    checkKernelSettings,
    facts({ 'usr/lib/sysctl.d/a.conf': 'kernel.core_pattern = |/usr/lib/systemd/systemd-coredump %P\n' }),
  )
  await finds(
    checkKernelSettings,
    facts({ 'usr/lib/sysctl.d/a.conf': 'kernel/unprivileged_bpf_disabled=0\n' }),
    /unprivileged_bpf_disabled = 0 lets anyone/,
  )
  await finds(
    checkKernelSettings,
    facts({ 'etc/sysctl.d/a.conf': '-kernel.core_pattern=|/tmp/x\n' }),
    /not of \/usr with the rights of root/,
  )
})

test('checkUpdates() wants updates signed, and names the keys', async () => {
  const transfer = (lines: string) => ({
    'usr/lib/sysupdate.d/10.transfer': `[Transfer]\n${lines}\n[Source]\nType=url-file\nPath=https://example.org/\n`,
  })
  const ring = { 'usr/lib/systemd/import-pubring.pgp': Buffer.from('c60104', 'hex') }
  await holds(checkUpdates, facts({}), /no transfers/)
  await holds(checkUpdates, facts({ ...transfer(''), ...ring }), /^1 transfers, signed by [0-9A-F]{40}$/)
  await finds(
    checkUpdates,
    facts({ ...transfer('Verify=no'), ...ring }),
    /Verify=no takes whatever https:\/\/example\.org\/ says/,
  )
  await finds(checkUpdates, facts(transfer('')), /there is no keyring to check them by/)
  const local = { 'usr/lib/sysupdate.d/10.transfer': '[Source]\nType=regular-file\nPath=/\n' }
  await holds(checkUpdates, facts(local), /1 from local files/)
  const own = { 'usr/lib/sysupdate.app.d/10.transfer': '[Transfer]\nVerify=false\n[Source]\nType=url-tar\nPath=http://x/\n' }
  await finds(checkUpdates, facts(own), /Verify=no takes whatever http:\/\/x\/ says/)
})

test('fingerprints() reads keyrings of both packet formats, and ends with what is none', () => {
  assert.deepEqual(fingerprints(Buffer.from('no keyring')), [])
  assert.deepEqual(fingerprints(Buffer.from('9900', 'hex')), [])
  const old = Buffer.from('98020400000000', 'hex')
  const fresh = Buffer.from('c6020400000000', 'hex')
  assert.equal(fingerprints(old).length, 1)
  assert.deepEqual(fingerprints(old), fingerprints(fresh))
})

test('files are found through links, masks count, and circles end', () => {
  const files = system({
    a: link('b'),
    b: link('a'),
    'usr/lib/x.d/1.conf': 'lib',
    'usr/lib/x.d/2.conf': 'two',
    'etc/x.d/1.conf': link('/dev/null'),
    'etc/y': link('../usr/lib/x.d/2.conf'),
  })
  assert.equal(resolved(files.entries, 'a'), undefined)
  assert.equal(Buffer.from(files.bytes('etc/y')!).toString(), 'two')
  assert.equal(files.bytes('etc/y', 2), undefined)
  const inForce = configFiles(files, ['etc/x.d', 'usr/lib/x.d'], '.conf')
  assert.deepEqual(
    inForce.map(({ path }) => path),
    ['usr/lib/x.d/2.conf'],
  )
})
