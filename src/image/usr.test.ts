import assert from 'node:assert/strict'
import { existsSync, lstatSync, mkdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { madeDirectory, madeFile, madeSymlink, readText } from '../tree/content.ts'
import { type Inode, type Tree, treeOf } from '../tree/tree.ts'
import { handledPaths } from './factory.ts'
import { imageRelease, usrLayout } from './usr.ts'

const EPOCH = 1_700_000_000

function system(extra: Record<string, Inode> = {}): Tree {
  return treeOf(
    Object.entries({
      'usr/bin/true': madeFile('\x7fELF', EPOCH - 5, 0o755),
      'usr/lib/os-release': madeFile('ID=debian\nIMAGE_ID="old"\n', EPOCH),
      'usr/lib/tmpfiles.d/debian.conf': madeFile(
        'L+ /etc/mtab - - - - ../proc/self/mounts\nL+ /etc/vconsole.conf - - - - default/keyboard\n',
        EPOCH,
      ),
      'usr/lib/sysusers.d/dbus.conf': madeFile('u messagebus - "Bus"\n', EPOCH),
      'etc/passwd': madeFile('root:x:0:0::/root:/bin/bash\nmessagebus:x:997:997::/:/bin/false\n', EPOCH),
      'etc/group': madeFile('root:x:0:\nmessagebus:x:997:\n', EPOCH),
      'etc/machine-id': madeFile('0123456789abcdef0123456789abcdef\n', EPOCH),
      'etc/resolv.conf': madeFile('nameserver 10.0.0.1\n', EPOCH),
      'etc/pam.d/login': madeFile('auth required pam_unix.so\n', EPOCH + 100),
      'etc/odd name%': madeFile('x', EPOCH),
      'etc/credstore': madeDirectory(EPOCH, 0o700),
      'etc/alternatives/awk': madeSymlink('/usr/bin/mawk', EPOCH),
      'etc/systemd/system/multi-user.target.wants': madeDirectory(EPOCH),
      'etc/systemd/system/multi-user.target.wants/x.service': madeSymlink('/usr/lib/systemd/system/x.service', EPOCH),
      'etc/systemd/network/10-lan.network': madeFile('[Match]\n', EPOCH),
      'var/lib/dpkg/status': madeFile('Package: x\n', EPOCH),
      'var/lib/dpkg/status-old': madeFile('', EPOCH),
      'var/log/dpkg.log': madeFile('today', EPOCH),
      ...extra,
    }),
    madeDirectory(EPOCH),
  )
}

test('usrLayout() keeps /usr only, moves /etc to the factory and leaves out what belongs to one machine', async () => {
  const usr = await usrLayout(system(), {
    epoch: EPOCH,
    packageDatabase: true,
    withoutPcrlock: true,
    imageId: 'Minimal',
    imageVersion: '7',
  })
  const paths = [...usr.keys()]
  assert.deepEqual(
    paths.filter((path) => path !== '' && path !== 'usr' && !path.startsWith('usr/')),
    [],
  )
  assert.ok(usr.has('usr/share/factory/etc/pam.d/login'))
  assert.deepEqual(
    paths.filter((path) => /machine-id|resolv\.conf|factory\/etc\/(?:passwd|group)|\.wants|status-old|dpkg\.log/.test(path)),
    [],
  )
  assert.ok(usr.has('usr/lib/sysimage/dpkg/status'))
  assert.equal(await readText(usr, 'usr/lib/os-release'), 'ID=debian\nIMAGE_ID="Minimal"\nIMAGE_VERSION="7"\n')
  assert.equal(await readText(usr, 'usr/lib/sysusers.d/dbus.conf'), 'u messagebus 997 "Bus"\n')
  assert.equal(await readText(usr, 'usr/lib/credstore/passwd.hashed-password.root'), '!*')
  assert.ok([...usr.values()].every((inode) => inode.mtime <= EPOCH))
})

test('usrLayout() is the same whatever the clock of generated files said', async () => {
  const made = (mtime: number) =>
    usrLayout(system({ 'usr/lib/cache': madeFile('x', mtime) }), { epoch: EPOCH, packageDatabase: false, withoutPcrlock: false })
  assert.deepEqual(await made(EPOCH + 1), await made(EPOCH + 99_999))
})

test('imageRelease() sets keys in place and appends the missing ones', () => {
  assert.equal(
    imageRelease('A=1\nIMAGE_ID=x\nB=2', { imageId: 'y', hostname: 'pot' }),
    'A=1\nIMAGE_ID="y"\nB=2\nDEFAULT_HOSTNAME="pot"\n',
  )
})

test('handledPaths() reads every line type with modifiers', () => {
  assert.deepEqual(handledPaths('# L /etc/no\nL+ /etc/a - - - - x\nC! /etc/b\n  \nd /run/c 0755\n'), [
    '/etc/a',
    '/etc/b',
    '/run/c',
  ])
})

oracle('systemd-tmpfiles', 'systemd-tmpfiles puts /etc in place from the factory', async (_t, judge) => {
  const usr = await usrLayout(system(), { epoch: EPOCH, packageDatabase: true, withoutPcrlock: true, hostname: 'tureen' })
  for (const [path, inode] of usr) {
    if (inode.type !== 'file' || !('bytes' in inode.content)) continue
    mkdirSync(dirname(join(judge.dir, path)), { recursive: true })
    writeFileSync(join(judge.dir, path), inode.content.bytes)
  }
  await judge.run(['systemd-tmpfiles', `--root=${judge.dir}`, '--create', '--prefix=/etc', '--prefix=/var'])
  const etc = (path: string) => join(judge.dir, 'etc', path)
  assert.equal(readlinkSync(etc('pam.d/login')), '/usr/share/factory/etc/pam.d/login')
  assert.equal(readlinkSync(etc('odd name%')), '/usr/share/factory/etc/odd name%')
  assert.equal(readlinkSync(etc('alternatives/awk')), '/usr/bin/mawk')
  assert.equal(readlinkSync(etc('localtime')), '../usr/share/zoneinfo/UTC')
  assert.equal(readlinkSync(etc('mtab')), '../proc/self/mounts')
  assert.equal(lstatSync(etc('credstore')).mode & 0o777, 0o700)
  assert.ok(lstatSync(etc('pam.d')).isDirectory())
  assert.equal(readlinkSync(etc('hostname')), '/usr/share/factory/etc/hostname')
  assert.ok(!existsSync(etc('machine-id')))
  assert.equal(readlinkSync(join(judge.dir, 'var/lib/dpkg')), '/usr/lib/sysimage/dpkg')
})
