/** One script of a recipe run alone, by the command that a failing build hands out; and what `bisque clean` takes away. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { existingToolsTree } from '../src/build/tools.ts'
import { CACHE } from './baked.ts'

const skip =
  (await existingToolsTree('scripts', CACHE)) === undefined && !process.env['REQUIRE_ORACLES']
    ? 'the scripts tools are not there; npm test prepares them'
    : false

const top = mkdtempSync(join(tmpdir(), 'bisque-one-script-'))
let folders = 0

const OS = 'ID=debian\nVERSION_ID=13\n'
const SOUP = {
  'mkosi.conf':
    '[Distribution]\nDistribution=debian\nRelease=trixie\n[Config]\nDependencies=side\n[Output]\nFormat=directory\nImageId=Soup\nOutput=%i_%v\n[Content]\nBootable=no\nBaseTrees=base\n',
  'mkosi.version': '1\n',
  'base/usr/lib/os-release': OS,
  'mkosi.images/side/mkosi.conf': '[Output]\nFormat=tar\n[Content]\nBootable=no\nBaseTrees=base\n',
  'mkosi.images/side/base/usr/lib/os-release': OS,
  'mkosi.images/side/mkosi.postinst': '#!/bin/bash\necho from the side\n',
}

/** A folder with a sub-image, upon a base without packages: it bakes in a second. */
function soup(files: Readonly<Record<string, string>>): string {
  const folder = join(top, `soup-${++folders}`)
  for (const [name, text] of Object.entries({ ...SOUP, ...files })) {
    mkdirSync(join(folder, dirname(name)), { recursive: true })
    writeFileSync(join(folder, name), text)
    if (text.startsWith('#!')) chmodSync(join(folder, name), 0o755)
  }
  return folder
}

interface Said {
  status: number | null
  stdout: string
  stderr: string
}

function bisque(...args: readonly string[]): Said {
  return spawnSync(process.execPath, [resolve('src/main.ts'), ...args, '--cache', CACHE], { encoding: 'utf8' })
}

const linesOf = (text: string): string[] => text.trimEnd().split('\n')

/** Runs the last line of what a build complained, which is a command to paste. */
function pasted({ stderr }: Said, ...more: readonly string[]): Said {
  const command = linesOf(stderr).at(-1)!.trim()
  const [program, ...args] = command.split(' ')
  assert.match(program!, /bin\/bisque$|^bisque$/)
  return bisque(...args, ...more)
}

after(() => {
  // files of images belong to ids that only a namespace may remove
  spawnSync(process.execPath, ['--input-type=module', '--eval', REMOVE, '--', top])
})
const REMOVE = `import { enterNamespace } from ${JSON.stringify(resolve('src/run/namespace.ts'))}
await enterNamespace(['rm', '-rf', process.argv[1]], { env: { PATH: process.env.PATH } })`

describe('a script that fails', { skip }, () => {
  const scripts = {
    'mkosi.prepare': '#!/bin/bash\necho prepared >> "$BUILDROOT/usr/lib/order"\n',
    'mkosi.postinst':
      '#!/bin/bash\ncat "$BUILDROOT/usr/lib/order"\necho "no salt left"; echo "really" >/dev/stderr\n[ -n "$SALT" ] || exit 7\n',
    'mkosi.finalize': '#!/bin/bash\necho "not reached"\n',
    'mkosi.postoutput': '#!/bin/bash\nls "$OUTPUTDIR"\ntouch "$OUTPUTDIR/added"\n',
  }
  let recipe: string
  let failed: Said
  before(() => {
    recipe = soup(scripts)
    failed = bisque('build', recipe, '--set', 'WithDocs=no')
  })

  test('is told with its output, its exit status and the command that runs it again', () => {
    assert.equal(failed.status, 8, failed.stderr)
    const script = join(recipe, 'mkosi.postinst')
    assert.match(failed.stderr, new RegExp(`^error: Cannot run postinst script ${script}: it exited with 7$`, 'm'))
    assert.match(failed.stderr, /it exited with 7\nprepared\nno salt left\nreally\n/)
    const last = linesOf(failed.stderr).at(-1)!
    assert.match(last, new RegExp(`^ {2}\\S*bisque build ${recipe} --set WithDocs=no --script mkosi\\.postinst$`))
  })

  test('is run alone by that command, its output as it is, and with its exit status', () => {
    const again = pasted(failed)
    assert.equal(again.status, 8, again.stderr)
    assert.equal(again.stdout, 'prepared\nno salt left\n')
    assert.match(again.stderr, /^really$/m)
    assert.match(again.stderr, /it exited with 7\n {2}\S*bisque build .* --script mkosi\.postinst --shell\n$/)
    const mended = pasted(failed, '--set', 'Environment=SALT=sea')
    assert.equal(mended.status, 0, mended.stderr)
    assert.equal(mended.stdout, 'prepared\nno salt left\nmkosi.postinst exited with 0\n')
    assert.doesNotMatch(mended.stderr, /not reached/)
    assert.deepEqual(readdirSync(join(recipe, 'mkosi.output')), [], 'a script alone left artifacts')
  })

  test('of a sub-image is run with what comes before it alone', () => {
    const { status, stdout, stderr } = bisque('build', recipe, '--script', 'side/mkosi.postinst')
    assert.equal(status, 0, stderr)
    assert.equal(stdout, 'from the side\nmkosi.images/side/mkosi.postinst exited with 0\n')
    assert.doesNotMatch(stderr, /Make system|not reached/)
  })

  test('of the phase after an image finds the image, and what it adds is dropped', () => {
    const set = ['--set', 'Environment=SALT=sea']
    const { status, stdout, stderr } = bisque('build', recipe, '--script', 'mkosi.postoutput', ...set)
    assert.equal(status, 0, stderr)
    assert.equal(stdout, 'Soup_1\nside_1.tar.zst\nmkosi.postoutput exited with 0\n')
    assert.equal(existsSync(join(recipe, 'mkosi.output')) && readdirSync(join(recipe, 'mkosi.output')).length, 0)
  })

  test('leaves standard output to events with --json', () => {
    const { status, stdout, stderr } = bisque('build', recipe, '--script', 'side/mkosi.postinst', '--json')
    assert.equal(status, 0, stderr)
    const { type, exitCode, phase } = JSON.parse(linesOf(stdout).at(-1)!)
    assert.deepEqual({ type, exitCode, phase }, { type: 'result', exitCode: 0, phase: 'postinst' })
    assert.equal(stderr, 'from the side\n')
  })

  test('that is unknown is refused with those there are and the nearest', () => {
    const { status, stderr } = bisque('build', recipe, '--script', 'mkosi.postints')
    assert.equal(status, 9)
    assert.match(stderr, /^error: Cannot run script "mkosi\.postints": the recipe has no such script; there are:$/m)
    const names = ['mkosi.images/side/mkosi.postinst', 'mkosi.prepare', 'mkosi.postinst', 'mkosi.finalize', 'mkosi.postoutput']
    for (const name of names) assert.ok(stderr.includes(`\n  ${name}\n`), `${name} is missing:\n${stderr}`)
    assert.match(stderr, /\n {2}\S*bisque build \S+ --script mkosi\.postinst\n$/)
  })

  test('wants a terminal for its shell, and a script for --shell', () => {
    const noTerminal = bisque('build', recipe, '--script', 'mkosi.prepare', '--shell')
    assert.equal(noTerminal.status, 2)
    assert.match(noTerminal.stderr, /Cannot open a shell here: standard input or output is no terminal/)
    const noScript = bisque('build', recipe, '--shell')
    assert.equal(noScript.status, 2)
    assert.match(noScript.stderr, /--shell goes with --script/)
  })

  test('opens a shell in the place it ran in, with its own exit status', { skip: !existsSync('/usr/bin/script') }, () => {
    const words = [process.execPath, resolve('src/main.ts'), 'build', recipe, '--script', 'mkosi.postinst', '--shell']
    const command = [...words, '--cache', CACHE].join(' ')
    const { stdout, status } = spawnSync('script', ['-qec', command, '/dev/null'], {
      encoding: 'utf8',
      env: { ...process.env, SHELL: '/bin/sh', TERM: 'xterm' },
      input: 'echo "$((40+2)) $IMAGE_ID"; cat $BUILDROOT/usr/lib/order; exit\n',
    })
    assert.match(stdout, /mkosi\.postinst exited with 7\. This is the place it ran in/)
    assert.match(stdout, /^42 Soup\r?\nprepared\r?$/m)
    assert.equal(status, 8, stdout)
  })
})

describe('bisque clean', { skip }, () => {
  test('removes what builds of every version left and nothing else, then runs the clean scripts', () => {
    const clean = '#!/bin/bash\nset -e\n[ -z "$BUILDROOT" ]\ntouch "$SRCDIR/cleaned"\nrm "$OUTPUTDIR/made-by-hand"\n'
    const recipe = soup({ 'mkosi.clean': clean, 'mkosi.postoutput': '#!/bin/bash\ntouch "$OUTPUTDIR/added"\n' })
    const output = join(recipe, 'mkosi.output')
    const first = bisque('build', recipe)
    assert.equal(first.status, 0, first.stderr)
    assert.match(first.stdout, /mkosi\.output\/Soup_1\/\n\nLook at it: {2}.*Soup_1\.manifest\.json\n$/)
    assert.doesNotMatch(first.stdout, /undefined|Boot it|verified|root hash/)

    const second = bisque('build', recipe, '--bump', '--set', 'Format=tar')
    assert.equal(second.status, 0, second.stderr)
    assert.match(second.stderr, /mkosi\.version: 1 → 2; it stays so if this build fails/)
    assert.equal(readFileSync(join(recipe, 'mkosi.version'), 'utf8'), '2\n')
    assert.match(second.stdout, /Soup_2\.tar\.zst\n {2}size {7}\d+ B\n\nLook at it/)

    const foreign = { version: 1, image: { id: 'Stew', version: '1' }, manifestVersion: 1, artifacts: [{ name: 'kept' }] }
    const escaping = { ...foreign, image: { id: 'Soup', version: '9' }, artifacts: [{ name: '../mkosi.conf' }, { name: '..' }] }
    writeFileSync(join(output, 'Stew_1.manifest.json'), JSON.stringify(foreign))
    writeFileSync(join(output, 'Soup_9.manifest.json'), JSON.stringify(escaping))
    for (const name of ['kept', 'made-by-hand', 'Soup_7.raw']) writeFileSync(join(output, name), '')
    const { status, stdout, stderr } = bisque('clean', recipe)
    assert.equal(status, 0, stderr)
    assert.deepEqual(readdirSync(output).sort(), ['Soup_7.raw', 'Stew_1.manifest.json', 'kept'])
    assert.ok(existsSync(join(recipe, 'mkosi.conf')))
    assert.ok(existsSync(join(recipe, 'cleaned')), 'a clean script may change the sources')
    assert.match(stdout, /^Removed from .*mkosi\.output:\n/)
    for (const name of ['Soup_1', 'Soup_1.manifest.json', 'Soup_2.tar.zst', 'side_1.tar.zst', 'side_2.tar.zst', 'added'])
      assert.ok(stdout.includes(`\n  ${name}\n`), `${name} is missing:\n${stdout}`)

    writeFileSync(join(output, 'made-by-hand'), '')
    const again = bisque('clean', recipe, '--json')
    const { removed, scripts } = JSON.parse(linesOf(again.stdout).at(-1)!)
    assert.deepEqual({ removed, scripts }, { removed: [], scripts: 1 })
  })

  test('counts settings without effect in one line of a build, and leaves the list to the summary', () => {
    const recipe = soup({})
    const { stderr, status } = bisque('build', recipe, '--set', 'Incremental=yes', '--set', 'Format=none')
    assert.equal(status, 0, stderr)
    assert.doesNotMatch(stderr, /Incremental/)
    const conf = join(recipe, 'mkosi.conf')
    writeFileSync(conf, `${readFileSync(conf, 'utf8')}[Build]\nIncremental=yes\nUseSubvolumes=yes\n`)
    const noted = bisque('build', recipe, '--set', 'Format=none')
    assert.match(noted.stderr, /^· 2 settings of mkosi are without effect here: \S*bisque summary \S+ says which and why$/m)
    assert.match(bisque('summary', recipe).stdout, /mkosi\.conf:\d+: Incremental is without effect: every stage/)
  })
})

test('keys that sign a root hash are trusted by the images of a folder: their certificate is in verity.d', { skip }, () => {
  const recipe = soup({
    'mkosi.images/side/mkosi.conf': '[Output]\nFormat=sysext\n[Content]\nBootable=no\nOverlay=yes\nBaseTrees=base\n',
    'mkosi.images/side/mkosi.extra/usr/lib/salt': 'sea\n',
  })
  const { status, stderr } = bisque('build', recipe)
  assert.equal(status, 0, stderr)
  const installed = join(recipe, 'mkosi.output/Soup_1/usr/lib/verity.d/verity.crt')
  assert.equal(readFileSync(installed, 'utf8'), readFileSync(join(recipe, 'keys/verity.crt'), 'utf8'))
})
