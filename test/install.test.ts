/**
 * Installing: the packages of the example's initrd, and a few made here that use what dpkg offers, judged by the
 * installed system's own dpkg.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { sha256 } from '../src/base/digest.ts'
import { encodeAr } from '../src/formats/ar.ts'
import { encodeTar } from '../src/formats/tar.ts'
import { parseLocks } from '../src/packages/lock.ts'
import type { FetchedPackage } from '../src/packages/package.ts'
import { CACHE, notBaked } from './baked.ts'
import { debOf } from './deb.ts'
import type { Answer, Question } from './install/driver.ts'

const ENTER = `import { enterNamespace } from ${JSON.stringify(resolve('src/run/namespace.ts'))}
const [, ...argv] = process.argv
process.exitCode = await enterNamespace(argv, { env: { PATH: process.env.PATH } })`

describe('installDebian()', { skip: notBaked }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'bisque-install-'))
  // What it made belongs to others: only the namespace may remove it.
  after(() => inNamespace(['rm', '-rf', folder]))

  const base: FetchedPackage[] = parseLocks(readFileSync('examples/minimal/bisque.lock', 'utf8'), 'bisque.lock')
    .get('')!
    .groups.get('initrd')!
    .packages.map((p) => ({
      ...p,
      file: join(CACHE, 'store/sha256', p.sha256.slice(0, 2), p.sha256.slice(2)),
    }))

  /** A package made here. */
  function made(name: string, files: Record<string, string>, control: Record<string, string> = {}, fields = ''): FetchedPackage {
    const text = `Package: ${name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A Cook <cook@example.org>\n${fields}Description: ${name}\n`
    const scripts = Object.entries(control).map(([path, text]) => ({ path: `./${path}`, bytes: Buffer.from(text), mode: 0o755 }))
    const data = Object.entries(files).map(([path, text]) => ({
      path: `./${path}`,
      bytes: Buffer.from(text),
      mode: path.endsWith('su') ? 0o4755 : 0o644,
    }))
    const directories = [
      ...new Set(
        Object.keys(files).flatMap((path) =>
          path
            .split('/')
            .slice(0, -1)
            .map((_, i, all) => all.slice(0, i + 1).join('/')),
        ),
      ),
    ]
    const deb = encodeAr([
      { name: 'debian-binary', data: Buffer.from('2.0\n') },
      { name: 'control.tar', data: encodeTar([{ path: './control', bytes: Buffer.from(text) }, ...scripts]) },
      {
        name: 'data.tar',
        data: encodeTar([
          ...directories.map((path) => ({ path: `./${path}/`, type: 'directory' as const, mode: 0o755 })),
          ...data,
        ]),
      },
    ])
    const file = join(folder, `${name}.deb`)
    writeFileSync(file, deb)
    const filename = `pool/${name}_1.0-1_all.deb`
    return {
      name,
      version: '1.0-1',
      architecture: 'all',
      repository: 'here',
      filename,
      sizeBytes: deb.length,
      sha256: sha256(deb),
      file,
    }
  }

  function install(
    name: string,
    packages: readonly FetchedPackage[],
    commands: readonly string[] = [],
    more: Partial<Question> = {},
  ): Answer {
    const question: Question = { root: join(folder, name), packages: [...packages], commands: [...commands], ...more }
    const file = join(folder, `${name}.json`)
    writeFileSync(file, JSON.stringify(question))
    return JSON.parse(inNamespace([process.execPath, resolve('test/install/driver.ts'), file]))
  }

  describe('of a whole system', () => {
    let answer: Answer
    const field = (name: string) => `\${${name}}`
    const COMMANDS = [
      'dpkg --audit',
      'dpkg --verify',
      `dpkg-query -W -f '${field('db:Status-Abbrev')}\\n' | sort -u`,
      `cat /etc/soup.conf; dpkg-query -W -f '${field('Conffiles')}' soup`,
      'cat /var/lib/soup',
      'cat /usr/bin/ladle /usr/bin/ladle.distrib',
      'ls /usr/sbin/policy-rc.d; find / -xdev -name "*.dpkg-new" -o -xdev -name "*.dpkg-tmp"',
      'dpkg -S /usr/share/soup/spice /usr/share/soup/salt',
    ]
    before(() => {
      const soup = made(
        'soup',
        { 'etc/soup.conf': 'salt=yes\n', 'usr/share/soup/salt': 'salt', 'usr/bin/soup-su': '#!/bin/sh\n' },
        {
          conffiles: '/etc/soup.conf\n',
          triggers: 'interest-noawait /usr/share/soup\n',
          preinst:
            '#!/bin/sh\nset -e\n[ "$1" = install ]\necho "preinst $DPKG_MAINTSCRIPT_PACKAGE $(test -e /usr/share/soup/salt && echo late || echo early)" >>/var/lib/soup\ndpkg-divert --package soup --rename --divert /usr/bin/ladle.distrib --add /usr/bin/ladle\n',
          postinst:
            '#!/bin/sh\nset -e\necho "postinst $1 $(cat /etc/soup.conf) $(service start 2>/dev/null; invoke-rc.d soup start 2>/dev/null; echo $?)" >>/var/lib/soup\n',
        },
      )
      const spice = made(
        'spice',
        { 'usr/share/soup/spice': 'pepper', 'usr/bin/ladle': 'the distribution\n' },
        {},
        'Pre-Depends: soup\n',
      )
      const chef = made(
        'chef',
        { 'usr/share/chef': '' },
        { postinst: '#!/bin/sh\necho "the diverter" >/usr/bin/ladle\n' },
        'Depends: spice\n',
      )
      answer = install('whole', [...base, soup, spice, chef], COMMANDS)
      assert.equal(answer.fault, undefined)
    })
    const said = (command: number) => answer.said![command]!

    test('leaves a database in which dpkg finds nothing wrong, and files that match it', () => {
      assert.deepEqual([said(0), said(1), said(2)], ['', '', 'ii \n'])
    })
    test('puts conffiles in place and remembers their digests', () => {
      assert.match(said(3), /^salt=yes\n \/etc\/soup\.conf [0-9a-f]{32}$/)
    })
    test('runs preinst before unpacking, postinst after, and triggers for files of later packages; no service starts', () => {
      const lines = said(4).trim().split('\n')
      assert.equal(lines[0], 'preinst soup early')
      assert.match(lines[1]!, /^postinst configure salt=yes/)
      assert.match(lines.at(-1)!, /^postinst triggered/)
    })
    test('unpacks diverted files where the diversion says', () => {
      assert.equal(said(5), 'the diverter\nthe distribution\n')
    })
    test('leaves no policy and no half-placed file', () => {
      assert.match(said(6), /^ls: [^\n]*policy-rc\.d[^\n]*\n$/)
    })
    test('knows which package a file came from, and lists what runs with the rights of its owner', () => {
      assert.match(said(7), /^(?:soup: \/usr\/share\/soup\/salt\n|spice: \/usr\/share\/soup\/spice\n){2}$/)
      assert.ok(
        answer.setuid!.some(({ path, package: name }) => path.endsWith('usr/bin/soup-su') && name === 'soup'),
        JSON.stringify(answer.setuid),
      )
      assert.ok(answer.setuid!.some(({ path }) => path.endsWith('usr/bin/su') || path.endsWith('usr/bin/mount')))
    })
  })

  test('comes upon what is there: its triggers run, its database and files stay, its files are not taken', () => {
    const late = made(
      'late',
      { 'usr/share/soup/late': 'basil', 'usr/share/late': '' },
      { preinst: '#!/bin/sh\necho "preinst late $(test -e /usr/share/late && echo late || echo early)" >>/var/lib/soup\n' },
      'Depends: soup\n',
    )
    const commands = [
      'dpkg --audit; dpkg --verify',
      'tail -n 2 /var/lib/soup',
      'dpkg -l late soup | grep -c ^ii',
      'dpkg -S /usr/share/soup/salt',
    ]
    const { fault, said } = install('whole', [base[0]!, late], commands)
    assert.equal(fault, undefined)
    assert.equal(said![0], '')
    assert.match(said![1]!, /^preinst late early\npostinst triggered /)
    assert.deepEqual(said!.slice(2), ['2\n', 'soup: /usr/share/soup/salt\n'])

    const thief = made('thief', { 'usr/share/soup/salt': 'sugar' })
    assert.match(install('whole', [thief], []).fault!.message, /\/usr\/share\/soup\/salt is also in soup/)
    const other = { ...base[0]!, version: `${base[0]!.version}+other` }
    assert.match(install('whole', [other], []).fault!.message, /is there already$/)
  })

  test('takes volatile packages from what build scripts made, with what they need and what needs them', () => {
    const built = join(folder, 'built')
    mkdirSync(built)
    const fresh = { 'usr/share/fresh': '', 'usr/share/doc/soup/NEWS': 'more salt' }
    const files: [name: string, version: string, fields: Record<string, string>][] = [
      ['soup', '2.0-1', { Depends: 'stock (= 2.0-1)' }],
      ['soup', '1.9-1', { Depends: 'nothing-there-is' }],
      ['stock', '2.0-1', {}],
      ['spice', '0.9-1', { 'Pre-Depends': 'soup' }],
      ['unasked', '2.0-1', {}],
    ]
    for (const [name, version, fields] of files)
      writeFileSync(join(built, `${name}_${version}_all.deb`), debOf(name, version, fields, name === 'soup' ? fresh : {}))
    const question = { built: { folder: built, wanted: ['soup', 'spice'] } }
    const commands = [
      'dpkg --audit',
      "dpkg -l soup stock spice chef | awk '/^ii/ { print $2, $3 }'",
      'ls /usr/share/fresh /usr/share/doc/soup /var/lib/dpkg/built.ci',
    ]
    const { fault, said, built: taken } = install('whole', [], commands, question)
    assert.equal(fault, undefined)
    assert.deepEqual(taken!.toSorted(), ['soup 2.0-1', 'spice 0.9-1', 'stock 2.0-1'])
    assert.equal(said![0], '')
    assert.equal(said![1], 'chef 1.0-1\nsoup 2.0-1\nspice 0.9-1\nstock 2.0-1\n')
    assert.match(said![2]!, /\/usr\/share\/fresh/)
    assert.equal(said![2]!.match(/No such file/g)?.length, 2, said![2])
    const lacking = install('whole', [], [], { built: { folder: built, wanted: ['chef', 'awk', 'not-built', 'also-*'] } })
    assert.match(lacking.fault!.message, /^Cannot install not-built: no repository has it, and build scripts left none/)
  })

  test('names package, script, exit status and last words when a script fails', () => {
    const sour = made('sour', { 'usr/share/sour': '' }, { postinst: '#!/bin/sh\necho "the cream is off"\nexit 42\n' })
    const { fault } = install('failing', [...base, sour])
    assert.equal(fault?.code, 'tool')
    for (const part of ['sour', 'post-installation', '42', 'the cream is off'])
      assert.ok(fault!.message.includes(part), fault!.message)
  })

  test('refuses two packages with the same file where neither replaces the other', () => {
    const one = made('one', { 'usr/share/same': '1' })
    const two = made('two', { 'usr/share/same': '2' })
    const { fault } = install('conflict', [...base, one, two])
    assert.ok(fault, 'it was installed')
    for (const part of ['one', 'two', '/usr/share/same']) assert.ok(fault.message.includes(part), fault.message)
  })
})

/** Runs a command in the namespace of a build; its standard output. */
function inNamespace(argv: readonly string[]): string {
  const command = ['--input-type=module', '-e', ENTER, '--', ...argv]
  return execFileSync(process.execPath, command, { encoding: 'utf8', maxBuffer: 64 << 20, stdio: ['ignore', 'pipe', 'pipe'] })
}
