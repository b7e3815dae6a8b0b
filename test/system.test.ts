/**
 * Systems of mkosi's kind: the order and surroundings of scripts, trees of every form, and what finishes a root. Most are
 * made upon next to nothing, with the programs of the tools tree; one is installed from real packages.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { after, describe, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { xzSync } from 'node-liblzma'
import { existingToolsTree } from '../src/build/tools.ts'
import { encodeTar } from '../src/formats/tar.ts'
import { parseLocks } from '../src/packages/lock.ts'
import type { FetchedPackage } from '../src/packages/package.ts'
import { CACHE } from './baked.ts'
import type { Answer, Question } from './system/driver.ts'

const EPOCH = 1_790_000_000
const TOOLS = await existingToolsTree('scripts', CACHE)
const skip =
  TOOLS === undefined && !process.env['REQUIRE_ORACLES'] ? 'the scripts tools are not there; npm test prepares them' : false

const ENTER = `import { enterNamespace } from ${JSON.stringify(resolve('src/run/namespace.ts'))}
const [, ...argv] = process.argv
process.exitCode = await enterNamespace(argv, { env: { PATH: process.env.PATH } })`

function inNamespace(argv: readonly string[]): void {
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', ENTER, '--', ...argv], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
}

const top = mkdtempSync(join(tmpdir(), 'bisque-system-'))
after(() => inNamespace(['rm', '-rf', top]))
let folders = 0

/** A folder in mkosi's format; scripts are executable. */
function folderWith(files: Readonly<Record<string, string | Uint8Array>>): string {
  const folder = join(top, `folder-${++folders}`)
  for (const [name, text] of Object.entries({ ...SKELETON, ...files })) {
    mkdirSync(join(folder, dirname(name)), { recursive: true })
    writeFileSync(join(folder, name), text)
    if (typeof text === 'string' && text.startsWith('#!')) chmodSync(join(folder, name), 0o755)
  }
  return folder
}

const SKELETON = {
  'mkosi.conf':
    '[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nFormat=directory\nImageId=Soup\nImageVersion=2\n[Content]\nBootable=no\n',
  'mkosi.skeleton/usr/lib/os-release': 'ID=debian\nVERSION_ID=13\n',
}

function make(recipe: string, more: Partial<Question> = {}): Answer & { work: string } {
  const work = `${recipe}-work${++folders}`
  const [question, answer] = [`${work}.question`, `${work}.answer`]
  const asked: Question = { recipe, set: [], packages: [], tools: TOOLS!, work, epoch: EPOCH, ...more }
  writeFileSync(question, JSON.stringify(asked))
  inNamespace([process.execPath, 'test/system/driver.ts', question, answer])
  return { ...(JSON.parse(readFileSync(answer, 'utf8')) as Answer), work }
}

function made(...args: Parameters<typeof make>): Answer & { work: string } {
  const answer = make(...args)
  assert.equal(answer.fault, undefined, answer.fault?.message)
  return answer
}

/** Notes what a script sees below /seen, under its phase. */
const SEE = `#!/bin/bash
set -e
phase=$(basename "$0")
root=$BUILDROOT; [ "$phase" = build-script ] && root=$DESTDIR
mkdir -p "$root/seen"
{ pwd; echo "$0 $*"; env; } > "$root/seen/$phase$1"
echo "$phase $1" >> "$ARTIFACTDIR/order"
`

describe('scripts of a folder in mkosi’s format', { skip }, () => {
  test('run in mkosi’s order, each with the variables that its table lists', () => {
    const names = ['prepare', 'build', 'postinst', 'finalize'].map((phase) => `mkosi.${phase}`)
    const files = Object.fromEntries(names.map((name) => [name, SEE]))
    files['mkosi.finalize'] = `${SEE}cp "$ARTIFACTDIR/order" "$BUILDROOT/seen/order"\n`
    const recipe = folderWith({ ...files, 'mkosi.builddir/keep': '', 'mkosi.env': 'SALT=sea\n' })
    const { texts } = made(recipe, { set: ['Environment=SPICE=nutmeg', 'WithTests=no', 'Profiles='] })
    assert.equal(texts['seen/order'], 'prepare final\nprepare build\nbuild-script \npostinst final\nfinalize \n')
    const common =
      'ARCHITECTURE ARTIFACTDIR BUILDROOT CHROOT_SCRIPT CHROOT_SRCDIR DISTRIBUTION DISTRIBUTION_ARCHITECTURE EFI_ARCHITECTURE IMAGE_ID IMAGE_VERSION MKOSI_CONFIG MKOSI_DEBUG MKOSI_GID MKOSI_UID PACKAGEDIR RELEASE SOURCE_DATE_EPOCH SRCDIR WITH_NETWORK SPICE SALT'
    const own: Record<string, string> = {
      preparefinal: 'WITH_DOCS WITH_TESTS',
      'build-script': 'WITH_DOCS WITH_TESTS BUILDDIR CHROOT_BUILDDIR DESTDIR CHROOT_DESTDIR',
      postinstfinal: 'BUILDDIR OUTPUTDIR CHROOT_OUTPUTDIR',
      finalize: 'BUILDDIR OUTPUTDIR CHROOT_OUTPUTDIR',
    }
    const some = ['BUILDDIR', 'CHROOT_BUILDDIR', 'DESTDIR', 'CHROOT_DESTDIR', 'OUTPUTDIR', 'CHROOT_OUTPUTDIR']
    for (const [file, names] of Object.entries(own)) {
      const seen = texts[`seen/${file}`]!
      assert.ok(seen !== undefined, `${file} did not run`)
      const expected = `${common} ${names}`.split(' ')
      for (const name of expected) assert.match(seen, new RegExp(`^${name}=`, 'm'), `${file} has no ${name}`)
      for (const name of some)
        if (!expected.includes(name)) assert.doesNotMatch(seen, new RegExp(`^${name}=`, 'm'), `${file}: ${name}`)
      assert.match(seen, new RegExp(`^SOURCE_DATE_EPOCH=${EPOCH}$`, 'm'))
    }
    assert.match(texts['seen/finalize']!, /^\/work\/src\n\/work\/finalize \n/)
    assert.match(texts['seen/build-script']!, /^WITH_TESTS=0$/m)
    assert.match(texts['seen/finalize']!, /^BUILDROOT=\/buildroot$/m)
  })

  test('find their settings as JSON, and a system beneath them that holds more than the image', () => {
    const script =
      '#!/bin/bash\nset -e\nmkdir -p $BUILDROOT/seen\njq -r ".ImageId + \\" \\" + .Image + \\" \\" + .Format" "$MKOSI_CONFIG" > $BUILDROOT/seen/config\nawk "BEGIN { print 6*7 }" > $BUILDROOT/seen/awk\n'
    const { texts, paths } = made(folderWith({ 'mkosi.postinst': script }))
    assert.equal(texts['seen/config'], 'Soup main directory\n')
    assert.equal(texts['seen/awk'], '42\n')
    for (const place of ['work', 'buildroot', 'chroot', 'proc', 'dev', 'run', 'tmp', 'etc/resolv.conf'])
      assert.equal(paths[place], undefined, `/${place} was left in the image`)
  })

  test('may change the sources, and nothing stays changed; a key is empty for them', () => {
    const script =
      '#!/bin/bash\nset -e\necho changed > "$SRCDIR/recipe"; touch "$SRCDIR/new"; mkdir -p "$BUILDROOT/seen"; cat mkosi.key keys/db.key > "$BUILDROOT/seen/keys" 2>&1 || :\ncat recipe > "$BUILDROOT/seen/recipe"\n'
    const recipe = folderWith({ 'mkosi.postinst': script, recipe: 'as it was\n', 'mkosi.key': 'SECRET', 'keys/db.key': 'SECRET' })
    const { texts } = made(recipe, { set: ['VerityKey=', 'SecureBootKey=', 'SignExpectedPcrKey='] })
    assert.equal(texts['seen/recipe'], 'changed\n')
    assert.equal(readFileSync(join(recipe, 'recipe'), 'utf8'), 'as it was\n')
    assert.equal(existsSync(join(recipe, 'new')), false)
    assert.doesNotMatch(texts['seen/keys']!, /SECRET/)
  })

  test('keep what build scripts put into $BUILDDIR, and ship only what is in $DESTDIR', () => {
    const script =
      '#!/bin/bash\nset -e\necho x >> "$BUILDDIR/runs"\nmkdir -p "$DESTDIR/opt" "$BUILDROOT/opt"\ncp "$BUILDDIR/runs" "$DESTDIR/opt/runs"\ntouch "$BUILDROOT/opt/dropped"\n'
    const recipe = folderWith({ 'mkosi.build': script, 'mkosi.builddir/keep': '' })
    made(recipe)
    const { texts, paths } = made(recipe)
    assert.equal(texts['opt/runs'], 'x\nx\n')
    assert.equal(paths['opt/dropped'], undefined)
  })

  test('find every variable and command of the host hidden, and no network', () => {
    const script =
      '#!/bin/bash\nset -e\nmkdir -p "$BUILDROOT/seen"; { env; ls /home; grep -c : /proc/net/dev; } > "$BUILDROOT/seen/host"\n'
    process.env['HOST_SECRET'] = 'SECRET'
    const { texts } = made(folderWith({ 'mkosi.finalize': script }))
    assert.doesNotMatch(texts['seen/host']!, /SECRET/)
    assert.match(texts['seen/host']!, /^1$/m)
  })

  for (const [what, body, expected] of [
    ['exit status', 'echo "no salt left"; echo "really" >&2; exit 7', /it exited with 7\nno salt left\nreally$/],
    ['signal', 'kill -SEGV $$', /signal 11 ended it/],
    ['last lines', 'for i in {1..99}; do echo "line $i"; done; exit 1', /it exited with 1\nline 80\n[\s\S]*line 99$/],
  ] as const) {
    test(`end in a Fault with phase, script and ${what} when they fail`, () => {
      const { fault } = make(folderWith({ 'mkosi.postinst': `#!/bin/bash\n${body}\n` }))
      assert.equal(fault?.code, 'tool')
      assert.match(fault!.message, /^Cannot run postinst script \/.*mkosi\.postinst: /)
      assert.match(fault!.message, expected)
    })
  }

  test('are refused when they are not executable, with the command that mends it', () => {
    const recipe = folderWith({ 'mkosi.postinst': '#!/bin/sh\n' })
    chmodSync(join(recipe, 'mkosi.postinst'), 0o644)
    const { fault } = make(recipe)
    assert.match(fault!.message, /mkosi\.postinst is not executable/)
    assert.equal(fault!.hint, `chmod +x ${join(recipe, 'mkosi.postinst')}`)
    made(recipe, { set: ['MakeScriptsExecutable=yes'] })
  })

  test('get no packages but the locked ones, and are told where to name others', () => {
    const { fault } = make(folderWith({ 'mkosi.prepare': '#!/bin/bash\napt-get -y install cowsay\n' }))
    assert.match(
      fault!.message,
      /cannot install cowsay: scripts get no packages but those of bisque\.lock\nput them into Packages=/,
    )
  })

  test('that run outside of the image see no image: sync changes the sources, postoutput and clean what is made', () => {
    const see = (what: string) => `#!/bin/bash\nset -e\n[ -z "\${BUILDROOT+set}" ]\n${what}\n`
    const recipe = folderWith({
      'mkosi.sync': see('[ -z "$OUTPUTDIR" ] && echo "$1 $CACHED" > pulled'),
      'mkosi.postoutput': see('echo sums > "$OUTPUTDIR/SUMS"; ! touch /usr/x 2>/dev/null'),
      'mkosi.clean': see('rm "$OUTPUTDIR/SUMS"; touch "$OUTPUTDIR/cleaned-$IMAGE_ID"'),
    })
    const { work } = made(recipe, { outside: ['sync', 'postoutput', 'clean'] })
    assert.equal(readFileSync(join(recipe, 'pulled'), 'utf8'), 'final 0\n')
    assert.deepEqual(readdirSync(join(work, 'output')), ['cleaned-Soup'])
  })

  test('print to the report as they run', () => {
    const { notes } = made(folderWith({ 'mkosi.postinst': '#!/bin/bash\nprintf "stirring\\n\\033[31mred\\033[0m\\n"\n' }))
    assert.deepEqual(
      notes.filter((note) => /stirring|red/.test(note)),
      ['stirring', 'red'],
    )
  })
})

describe('trees of a recipe', { skip }, () => {
  const archive = encodeTar([
    { path: './opt/', type: 'directory', mode: 0o750 },
    { path: './opt/tarred', bytes: Buffer.from('tar\n'), mode: 0o640, uid: 7, gid: 8, mtime: EPOCH - 5 },
    { path: './opt/again', type: 'hardlink', target: './opt/tarred' },
    { path: './opt/link', type: 'symlink', target: 'tarred' },
    { path: './run/left-out', bytes: Buffer.from('x') },
  ])

  test('are merged as folders, unpacked as archives, copied as files; what an author owns becomes root’s', () => {
    const recipe = folderWith({
      'mkosi.extra/etc/soup.conf': 'salt=yes\n',
      'mkosi.extra/usr/lib/os-release': 'ID=debian\nVERSION_ID=14\n',
      'single.conf': 'one\n',
      'a.tar': archive,
      'b.tar.gz': gzipSync(archive),
      'c.tar.xz': xzSync(Buffer.from(archive)),
      'd.tar.zst': zstdCompressSync(archive),
    })
    chmodSync(join(recipe, 'mkosi.extra/etc'), 0o700)
    chmodSync(join(recipe, 'mkosi.extra/etc/soup.conf'), 0o604)
    symlinkSync('soup.conf', join(recipe, 'mkosi.extra/etc/link'))
    mkdirSync(join(recipe, 'mkosi.skeleton/etc'))
    const trees = ['single.conf:/etc/renamed', 'single.conf:/etc', 'single.conf', 'a.tar', 'b.tar.gz', 'c.tar.xz', 'd.tar.zst']
    const { paths, texts } = made(recipe, { set: [`ExtraTrees=${trees.join(',')}`] })
    assert.equal(paths['etc'], 'directory 755 0:0', 'a folder that was there keeps its mode')
    assert.equal(paths['etc/soup.conf'], 'file 604 0:0')
    assert.equal(paths['etc/link'], 'symlink 777 0:0 soup.conf')
    assert.match(texts['usr/lib/os-release']!, /^VERSION_ID=14$/m)
    for (const path of ['etc/renamed', 'etc/single.conf']) assert.equal(texts[path], 'one\n', path)
    assert.equal(paths['single.conf'], 'file 644 0:0')
    assert.equal(paths['opt'], 'directory 750 0:0')
    assert.equal(paths['opt/tarred'], 'file 640 7:8')
    assert.equal(paths['opt/again'], 'file 640 7:8')
    assert.equal(paths['opt/link'], 'symlink 777 0:0 tarred')
    assert.equal(paths['run/left-out'], undefined)
  })

  test('follow links of the image and never leave it', () => {
    const recipe = folderWith({ 'mkosi.extra/lib/soup': 'soup\n', 'mkosi.extra/climb/x': 'x\n' })
    symlinkSync('usr/lib', join(recipe, 'mkosi.skeleton/lib'))
    symlinkSync('../../../../../..', join(recipe, 'mkosi.skeleton/climb'))
    const { paths, texts } = made(recipe)
    assert.equal(texts['usr/lib/soup'], 'soup\n')
    assert.equal(paths['x'], 'file 644 0:0')
  })

  test('are a base to ship only the difference to, with Overlay=yes', () => {
    const recipe = folderWith({
      'base/usr/lib/os-release': 'ID=debian\n',
      'base/usr/lib/old': 'old\n',
      'mkosi.extra/usr/lib/new': 'new\n',
    })
    const { paths } = made(recipe, { set: ['BaseTrees=base', 'Overlay=yes', 'Format=directory'] })
    assert.deepEqual(Object.keys(paths), ['', 'usr', 'usr/lib', 'usr/lib/new'])
    const base = encodeTar([{ path: 'usr/lib/old', bytes: Buffer.from('old\n'), uid: 5 }])
    const packed = folderWith({ 'base.tar': base, 'mkosi.extra/usr/lib/new': 'new\n' })
    const upon = ['BaseTrees=base.tar', 'SkeletonTrees=']
    assert.equal(
      made(packed, { set: [...upon, 'ExtraTrees=', 'SkeletonTrees=mkosi.skeleton'] }).paths['usr/lib/old'],
      'file 644 5:0',
    )
    assert.deepEqual(Object.keys(made(packed, { set: [...upon, 'Overlay=yes'] }).paths), ['', 'usr', 'usr/lib', 'usr/lib/new'])
  })

  test('that are not there, or lead out of an archive, are refused by name', () => {
    assert.match(make(folderWith({}), { set: ['ExtraTrees=nowhere'] }).fault!.message, /nowhere to the image: it does not exist/)
    const recipe = folderWith({ 'bad.tar': encodeTar([{ path: '../escape', bytes: Buffer.from('x') }]) })
    assert.match(make(recipe, { set: ['ExtraTrees=bad.tar'] }).fault!.message, /"\.\.\/escape" leads out of it/)
    assert.equal(existsSync(join(top, 'escape')), false)
  })
})

describe('what finishes a root', { skip }, () => {
  test('needs a system to be there', () => {
    const recipe = folderWith({})
    const { fault } = make(recipe, { set: ['SkeletonTrees='] })
    assert.match(fault!.message, /Cannot finish main: it has no \/usr\/lib\/os-release/)
  })

  test('names image, version and host in os-release, and writes what settings ask for', () => {
    const recipe = folderWith({ 'cert/verity.pem': 'CERTIFICATE\n', 'mkosi.extra/usr/share/gone/file': '' })
    const set = [
      'Hostname=soup-????',
      'Autologin=yes',
      'VerityCertificate=cert/verity.pem',
      'RemoveFiles=/usr/share/g*',
      'RootPassword=hashed:$6$a$b',
    ]
    const { texts, paths } = made(recipe, { set })
    assert.equal(
      texts['usr/lib/os-release'],
      'ID=debian\nVERSION_ID=13\nIMAGE_ID="Soup"\nIMAGE_VERSION="2"\nDEFAULT_HOSTNAME="soup-????"\n',
    )
    assert.equal(texts['etc/hostname'], 'soup-????\n')
    assert.equal(texts['usr/lib/verity.d/verity.crt'], 'CERTIFICATE\n')
    assert.match(
      texts['usr/lib/systemd/system/getty@tty1.service.d/autologin.conf']!,
      /^ExecStart=-agetty .* --autologin root --noclear - \$TERM$/m,
    )
    assert.equal(paths['usr/lib/clock-epoch'], 'file 644 0:0')
    assert.equal(paths['usr/share/gone'], undefined)
    assert.equal(texts['usr/lib/credstore/passwd.hashed-password.root'], '$6$a$b')
    assert.equal(paths['usr/lib/credstore/passwd.hashed-password.root'], 'file 600 0:0')
  })
})

const LOCK = readFileSync('examples/minimal/bisque.lock', 'utf8')
const PACKAGES: FetchedPackage[] = parseLocks(LOCK, 'bisque.lock')
  .get('')!
  .groups.get('initrd')!
  .packages.map((p) => ({ ...p, file: join(CACHE, 'store/sha256', p.sha256.slice(0, 2), p.sha256.slice(2)) }))
const noPackages =
  skip || (PACKAGES.every(({ file }) => existsSync(file)) ? false : 'the packages of examples/minimal are not in the cache')

describe('an image of Debian’s packages', { skip: noPackages }, () => {
  const chroot = '#!/bin/bash\nset -e\nmkdir -p /seen\n{ pwd; echo "$0 $*"; env; } > /seen/$(basename $0)$1\n'
  const recipe = folderWith({
    'mkosi.postinst.chroot': `${chroot}useradd --system --no-create-home ladle\n`,
    'mkosi.prepare':
      '#!/bin/bash\nset -e\nmkosi-chroot bash -c \'mkdir -p /seen; echo "$PWD $BUILDROOT $(id -u)" > /seen/chroot\'\nmkosi-install bash\ndpkg-query --status bash | grep ^Status > "$BUILDROOT/seen/dpkg"\n',
    'mkosi.build.chroot':
      '#!/bin/bash\nset -e\nmkdir -p "$DESTDIR/seen"\ntype -p mkfs.fat > "$DESTDIR/seen/built"\ndpkg --audit\n',
    'mkosi.extra/usr/lib/sysusers.d/soup.conf': 'u soup - "Soup" /var/lib/soup\n',
    'mkosi.extra/usr/lib/tmpfiles.d/soup.conf': 'd /var/lib/soup 0750 soup soup\nd /run/soup\n',
    'mkosi.extra/usr/lib/systemd/system/soup.service': '[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n',
    'mkosi.extra/usr/lib/systemd/system/cold.service': '[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n',
    'mkosi.extra/usr/lib/systemd/system-preset/10-soup.preset': 'disable cold.service\n',
    'mkosi.extra/usr/lib/systemd/user/spoon.service': '[Service]\nExecStart=true\n[Install]\nWantedBy=default.target\n',
  })
  const set = [
    'Locale=C.UTF-8',
    'Keymap=us',
    'RootPassword=soup',
    'RemovePackages=less',
    'Hostname=soup',
    'CleanPackageMetadata=no',
  ]
  const isBuild = ({ name }: FetchedPackage) => name === 'dosfstools'
  const packages = { packages: PACKAGES.filter((p) => !isBuild(p)), buildPackages: PACKAGES.filter(isBuild) }
  let first: Answer

  test('is finished as mkosi finishes it', () => {
    first = made(recipe, { set, ...packages })
    const { paths, texts } = first
    assert.equal(paths['etc/machine-id'], 'file 444 0:0')
    assert.equal(texts['etc/machine-id'], 'uninitialized\n')
    assert.equal(paths['efi'], 'directory 500 0:0')
    assert.equal(paths['boot/loader/entries.srel'], 'file 600 0:0')
    assert.match(texts['etc/passwd']!, /^soup:x:\d+:\d+:Soup:\/var\/lib\/soup:/m)
    const [, id] = /^soup:x:(\d+)/m.exec(texts['etc/passwd']!)!
    assert.equal(paths['var/lib/soup'], `directory 750 ${id}:${id}`)
    assert.equal(paths['run/soup'], undefined)
    assert.match(paths['etc/systemd/system/multi-user.target.wants/soup.service']!, /^symlink .*\/soup\.service$/)
    assert.equal(paths['etc/systemd/system/multi-user.target.wants/cold.service'], undefined)
    assert.match(paths['etc/systemd/user/default.target.wants/spoon.service']!, /^symlink /)
    assert.match(paths['usr/lib/udev/hwdb.bin']!, /^file /)
    assert.equal(paths['etc/udev/hwdb.bin'], undefined)
    assert.equal(texts['etc/locale.conf'], 'LANG=C.UTF-8\n')
    assert.match(texts['etc/vconsole.conf']!, /^KEYMAP=us$/m)
    assert.match(texts['etc/shadow']!, new RegExp(`^root:\\$6\\$[^:]*:${Math.floor(EPOCH / 86_400)}:`, 'm'))
    assert.equal(texts['usr/lib/credstore/firstboot.keymap'], 'us')
    assert.equal(paths['init'], 'symlink 777 0:0 /usr/lib/systemd/systemd')
  })

  test('runs .chroot scripts with the image as /, and others beside it with mkosi-chroot', () => {
    const { texts } = first
    assert.match(texts['seen/postinstfinal']!, /^\/work\/src\n\/work\/postinst final\n/)
    assert.match(texts['seen/postinstfinal']!, /^BUILDROOT=\/$/m)
    assert.match(texts['etc/passwd']!, /^ladle:/m)
    assert.equal(texts['seen/chroot'], '/work/src / 0\n')
    assert.equal(texts['seen/dpkg'], 'Status: install ok installed\n')
  })

  test('shows build packages to build scripts alone', () => {
    assert.match(first.texts['seen/built']!, /\/mkfs\.fat$/m)
    assert.equal(first.paths['usr/sbin/mkfs.fat'], undefined)
    assert.doesNotMatch(first.paths['var/lib/dpkg/info/dosfstools.list'] ?? '', /./)
  })

  test('lets dpkg remove packages, and keeps its database where dpkg is in the image', () => {
    const { paths } = first
    assert.equal(paths['usr/bin/less'], undefined)
    assert.match(paths['usr/bin/dpkg']!, /^file /)
    assert.match(paths['var/lib/dpkg/status']!, /^file /)
    assert.equal(paths['work'], undefined)
  })

  test('is the same, byte for byte, when it is made again', () => {
    const { digest } = made(recipe, { set, ...packages })
    assert.equal(digest, first.digest)
  })

  test('is an initrd with MakeInitrd=yes, and a sub-image knows its name', () => {
    const { paths } = made(folderWith({}), { set: ['MakeInitrd=yes', 'Format=cpio', 'Locale=C.UTF-8'] })
    assert.equal(paths['etc/initrd-release'], 'symlink 777 0:0 /etc/os-release')
    assert.equal(paths['usr/lib/credstore'], undefined)
  })
})
