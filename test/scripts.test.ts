/** A recipe's own trees and scripts: what they see, what becomes of what they write, and what a failing one says. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { decodeErofs } from '../src/formats/erofs-decode.ts'
import { CACHE, notBaked } from './baked.ts'

const SEEN =
  'id -u; pwd; echo "$0 $1"; env | sort; ls /; ls "$SRCDIR"; touch "$SRCDIR/x" 2>&1 || :; wc -l </proc/net/dev; ls /home; echo keys: $(ls -A "$SRCDIR/keys")'

const FILES: Readonly<Record<string, string>> = {
  'extra/usr/lib/soup/menu': 'bisque\n',
  'extra/etc/soup.conf': 'salt=yes\n',
  'skeleton/usr/lib/soup/first': 'skeleton\n',
  'prepare.sh': `#!/bin/sh\nset -e\n(${SEEN}) >"$BUILDROOT/usr/lib/soup-prepare"\necho prepare >>"$BUILDROOT/usr/lib/soup-order"\n`,
  'postinst.chroot': `#!/bin/sh\nset -e\n(${SEEN}) >/usr/lib/soup-postinst\ncat /usr/lib/soup/menu >>/usr/lib/soup-order\n`,
  'finalize.sh':
    '#!/bin/sh\nset -e\necho finalize >>"$BUILDROOT/usr/lib/soup-order"\nmkdir "$BUILDROOT/usr/share/gone"\ntouch "$BUILDROOT/usr/share/gone/file"\n',
  'fails.sh': '#!/bin/sh\necho "no salt left"\necho "really" >&2\nexit 7\n',
}

describe('a recipe with trees and scripts of its own', { skip: notBaked }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-scripts-'))
  const recipe = join(folder, 'recipe')
  const output = join(folder, 'out')
  let usr: (path: string) => string | undefined

  const bisque = (...args: readonly string[]) =>
    spawnSync(process.execPath, ['src/main.ts', 'build', recipe, '-o', output, '--cache', CACHE, '--offline', ...args], {
      encoding: 'utf8',
    })

  before(() => {
    cpSync('examples/minimal', recipe, { recursive: true, filter: (path) => !path.endsWith('/out') })
    for (const [name, text] of Object.entries(FILES)) {
      mkdirSync(dirname(join(recipe, name)), { recursive: true })
      writeFileSync(join(recipe, name), text)
      if (/\.(?:sh|chroot)$/.test(name)) chmodSync(join(recipe, name), 0o755)
    }
    const settings = {
      SkeletonTrees: 'skeleton',
      ExtraTrees: 'extra',
      PrepareScripts: 'prepare.sh',
      PostInstallationScripts: 'postinst.chroot',
      FinalizeScripts: 'finalize.sh',
      RemoveFiles: '/usr/share/gone',
      RootPassword: 'soup',
      Environment: 'SPICE=nutmeg',
    }
    const { status, stderr } = bisque(...Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]))
    assert.equal(status, 0, stderr)
    usr = reader(join(output, readdirSync(output).find((name) => /usr-x86-64\.[0-9a-f]{32}\.raw$/.test(name))!))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  test('runs prepare, postinst and finalize in this order, extra trees in between', () => {
    assert.equal(usr('lib/soup-order'), 'prepare\nbisque\nfinalize\n')
    assert.equal(usr('lib/soup/first'), 'skeleton\n')
    assert.equal(usr('share/factory/etc/soup.conf'), 'salt=yes\n')
  })

  test('shows scripts the environment that mkosi documents, the recipe, and nothing of the host', () => {
    const [prepare, postinst] = [usr('lib/soup-prepare')!, usr('lib/soup-postinst')!]
    for (const line of [
      'IMAGE_ID=Minimal',
      'IMAGE_VERSION=1',
      'DISTRIBUTION=debian',
      'RELEASE=trixie',
      'ARCHITECTURE=x86-64',
      'SPICE=nutmeg',
    ])
      for (const seen of [prepare, postinst]) assert.ok(seen.includes(`\n${line}\n`), `${line} is missing:\n${seen}`)
    assert.match(prepare, /^BUILDROOT=\/buildroot$/m)
    assert.match(postinst, /^BUILDROOT=\/$/m)
    assert.match(prepare, /^0\n\/work\/src\n\/work\/prepare final\n/)
    assert.match(prepare, /^SOURCE_DATE_EPOCH=\d{10}$/m)
    for (const seen of [prepare, postinst]) {
      assert.match(seen, /Read-only file system/, 'the recipe is writable')
      assert.ok(seen.includes('recipe.ts'))
      assert.match(seen, /^keys:$/m, 'the private keys are there')
      assert.match(seen, /^3$/m, 'there is a network device beside the loopback')
      assert.ok(!seen.includes(folder), seen)
    }
  })

  test('removes what the recipe says, and leaves no mount point in the image', () => {
    assert.equal(usr('share/gone/file'), undefined)
  })

  test('keeps the root password as a hash, readable by root alone', () => {
    assert.match(usr('lib/credstore/passwd.hashed-password.root')!, /^\$6\$[0-9a-f]{16}\$[./0-9A-Za-z]{86}$/)
  })

  test('ends in a Fault with the output and exit status of a script that fails', () => {
    rmSync(output, { recursive: true })
    const { status, stderr } = bisque('--set', 'PrepareScripts=fails.sh')
    assert.equal(status, 8, stderr)
    assert.match(stderr, /error: Cannot run prepare script .*fails\.sh: it exited with 7\nno salt left\nreally/)
    assert.deepEqual(readdirSync(output), [])
  })
})

/** Reads files of an EROFS image as text. */
function reader(path: string): (path: string) => string | undefined {
  const fd = openSync(path, 'r')
  const erofs = decodeErofs((offset, length) => {
    const bytes = Buffer.alloc(length)
    readSync(fd, bytes, 0, length, offset)
    return bytes
  }, statSync(path).size)
  return (name) => {
    const inode = erofs.inodes.get(name)
    return inode === undefined ? undefined : Buffer.concat([...erofs.contents(inode)]).toString()
  }
}
