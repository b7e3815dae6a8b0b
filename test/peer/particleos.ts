// ParticleOS as both bake it: a checkout, and beside it what Debian's archive and this test ask for.
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Boot entries of its one UKI, in order. */
// biome-ignore format: one list
export const PROFILES = [
  'main', 'live', 'install', 'ipe', 'storagetm', 'factory-reset', 'factory-reset-tpm2-clear', 'emergency', 'debug',
]

/** Copies the recipe's files of a checkout into `folder`; what was built there stays behind. */
export function copyRecipe(checkout: string, folder: string): void {
  mkdirSync(folder, { recursive: true })
  const without = ['.git', 'mkosi.output', 'mkosi.cache', '.mkosi-private', 'mkosi.key', 'mkosi.crt', 'keys', 'bisque.lock']
  const pack = ['tar', '-C', checkout, ...without.map((name) => `--exclude=./${name}`), '-c', '.']
  // tar as root keeps modes and owners, whatever the umask
  const archive = execFileSync(pack[0]!, pack.slice(1), { maxBuffer: 256 << 20 })
  execFileSync('tar', ['-C', folder, '-xp', '--no-same-owner'], { input: archive })
  for (const [path, text] of Object.entries(FILES)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
}

/** Debian's sid has tpm2-setup in a package of its own, and only what the mirror of a machine without Internet has. */
const FILES: Readonly<Record<string, string>> = {
  'mkosi.version': '1\n',
  'mkosi.local.conf': `[Distribution]
Distribution=debian
Release=sid

[Build]
ToolsTree=

[Content]
VolatilePackages=systemd-tpm
InitrdVolatilePackages=systemd-tpm
`,
  'mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources': `Types: deb
URIs: http://deb.debian.org/debian
Suites: sid
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`,
  'mkosi.sandbox/etc/apt/apt.conf.d/90expired': 'Acquire::Check-Valid-Until "false";\n',
}

/** A key and certificate for both, as `mkosi genkey` makes them. */
export function makeKeys(folder: string): void {
  const subject = ['-subj', '/CN=Particle test/', '-days', '730', '-newkey', 'rsa:2048', '-nodes']
  const files = ['-keyout', join(folder, 'mkosi.key'), '-out', join(folder, 'mkosi.crt')]
  execFileSync('openssl', ['req', '-new', '-x509', ...subject, ...files], { stdio: 'ignore' })
}
