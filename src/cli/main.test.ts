import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))
const VERBS = ['init', 'summary', 'lock', 'build', 'bump', 'clean', 'vm', 'keys', 'cache', 'doctor']

function bisque(args: readonly string[], env: Record<string, string> = {}): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env: { ...process.env, ...env } }, (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    )
  })
}

function temporary(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'bisque-cli-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

test('help lists every verb, and every verb has help with examples', async () => {
  const { code, out } = await bisque(['--help'])
  assert.equal(code, 0)
  for (const verb of VERBS) assert.match(out, new RegExp(`^  ${verb} {2,}\\S`, 'm'))
  const pages = await Promise.all(
    [...VERBS.map((verb) => [verb]), ['keys', 'generate'], ['cache', 'prune']].map((words) => bisque([...words, '--help'])),
  )
  for (const page of pages) {
    assert.equal(page.code, 0)
    assert.match(page.out, /^Usage: bisque \w+/m)
    assert.match(page.out, /^Examples:\n {2}(bisque|cd) /m)
    assert.match(page.out, /--json/)
  }
})

test('--version is that of package.json', async () => {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  assert.equal((await bisque(['--version'])).out.trim(), version)
})

test('unknown verbs and options are named with the nearest, and exit with 2', async () => {
  const [verb, option, extra] = await Promise.all([
    bisque(['buidl']),
    bisque(['build', '--profle', 'x']),
    bisque(['build', 'a', 'b']),
  ])
  assert.equal(verb.code, 2)
  assert.match(verb.err, /^error: Cannot understand the command line: .*"buidl".*build/)
  assert.match(option.err, /"--profle".*--profile.*\n {2}bisque build --help\n$/)
  assert.equal(extra.code, 2)
  const sizes = await Promise.all(
    ['2G', '512M', 'much'].map((text) => bisque(['vm', '/nonexistent.raw', '--headless', '--memory', text])),
  )
  assert.deepEqual(
    sizes.map(({ code }) => code === 2),
    [false, false, true],
  )
})

test('a wrong recipe exits with 3 and lists its problems, plain where NO_COLOR or no terminal is', async (t) => {
  const directory = temporary(t)
  writeFileSync(
    join(directory, 'recipe.ts'),
    "import { defineRecipe } from 'bisque'\nexport default defineRecipe({ relaese: 'x', seed: 1 } as never)\n",
  )
  const { code, err, out } = await bisque(['summary', directory], { NO_COLOR: '1' })
  assert.equal(code, 3)
  assert.equal(out, '')
  assert.match(
    err,
    /^error: Cannot read recipe, 3 problems:\n {2}recipe\.ts: release is not set.*\n {2}recipe\.ts:2:31: unknown setting "relaese"/,
  )
  assert.doesNotMatch(err, /\x1b/)
})

test('--json ends with the result, or with the fault', async (t) => {
  const directory = temporary(t)
  const fault = await bisque(['--json', 'summary', join(directory, 'gone')])
  assert.equal(fault.code, 9)
  assert.equal(fault.err, '')
  const { type, code, exit, hint } = JSON.parse(fault.out.trimEnd().split('\n').at(-1)!)
  assert.deepEqual([type, code, exit], ['fault', 'missing', 9])
  assert.match(hint, /^bisque init/)
  const usage = JSON.parse((await bisque(['buidl', '--json'])).out)
  assert.deepEqual([usage.type, usage.code], ['fault', 'usage'])

  await bisque(['init', directory])
  const summary = await bisque(['summary', directory, '--json', '--set', 'RootPassword=soup'])
  const result = JSON.parse(summary.out.trimEnd().split('\n').at(-1)!)
  assert.deepEqual([result.type, result.verb], ['result', 'summary'])
  assert.equal(result.settings.Release.value, 'trixie')
  assert.match(result.settings.Release.origin, /^recipe\.ts:\d+:3$/)
  assert.deepEqual(result.settings.RootPassword.value, ['(secret)', false])
})

test('summary shows every image of a folder in mkosi’s format, the main one last', async (t) => {
  const directory = temporary(t)
  const sub = join(directory, 'mkosi.images/tools.conf')
  mkdirSync(dirname(sub))
  writeFileSync(join(directory, 'mkosi.conf'), '[Distribution]\nDistribution=debian\nRelease=trixie\n[Content]\nBootable=no\n')
  writeFileSync(sub, '[Output]\nFormat=sysext\n[Content]\nPackages=strace\n')
  const { out, code } = await bisque(['summary', directory], { NO_COLOR: '1' })
  assert.equal(code, 0)
  assert.match(
    out,
    /^tools: sysext image tools$[\s\S]*^Packages +strace +mkosi.images\/tools.conf:4$[\s\S]*^main: disk image image$/m,
  )
  const json = JSON.parse((await bisque(['summary', directory, '--json', '--all'])).out.trimEnd().split('\n').at(-1)!)
  assert.deepEqual(
    json.images.map((image: { name: string }) => image.name),
    ['tools', 'main'],
  )
  assert.deepEqual(json.images[1].settings.Bootable, { value: 'disabled', origin: 'mkosi.conf:5' })
  assert.deepEqual(json.images[1].settings.SplitArtifacts, { value: ['uki', 'kernel', 'initrd'], origin: 'default' })
})

test('init writes a recipe that loads, and overwrites nothing', async (t) => {
  const directory = temporary(t)
  writeFileSync(join(directory, '.gitignore'), 'mine\n')
  const first = await bisque(['-C', directory, 'init'])
  assert.equal(first.code, 0)
  assert.match(first.out, /^Wrote recipe\.ts\nKept \.gitignore\n/)
  assert.equal(readFileSync(join(directory, '.gitignore'), 'utf8'), 'mine\n')
  const second = await bisque(['init', directory])
  assert.equal(second.code, 2)
  assert.match(second.err, /recipe\.ts would be overwritten/)
  assert.equal((await bisque(['init', join(directory, 'new'), '--template', 'minimla'])).code, 9)
  const { out } = await bisque(['summary', '-C', directory, '--set', 'Hostname=kitchen'])
  assert.match(out, /^Release +trixie +recipe\.ts:\d+:3$/m)
  assert.match(out, /^Hostname +kitchen +--set Hostname=kitchen$/m)
  const template = readFileSync(new URL('../../templates/minimal/recipe.ts', import.meta.url), 'utf8')
  assert.equal(readFileSync(join(directory, 'recipe.ts'), 'utf8'), template)
})

test('cache show and doctor tell their findings', async (t) => {
  const directory = temporary(t)
  const cache = await bisque(['cache', 'show', '--json', '--cache', directory])
  assert.equal(JSON.parse(cache.out).blobs, 0)
  const doctor = await bisque(['doctor', '--cache', directory])
  assert.match(doctor.out, /^Node +ok +24\./m)
  assert.match(doctor.out, /^Disk +\w+ +\S+ \S+ free in/m)
  assert.match(doctor.out, /^unshare +\w+ /m)
})

test('completion scripts are valid and complete verbs and options', async (t) => {
  const directory = temporary(t)
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, out } = await bisque(['completion', shell])
    assert.equal(code, 0)
    assert.match(out, /bisque/)
    const script = join(directory, shell)
    writeFileSync(script, out)
    const check = [shell === 'fish' ? '--no-execute' : '-n', script]
    try {
      execFileSync(shell, check)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  const verbs = await bisque(['completion', 'bash', ''])
  for (const verb of VERBS) assert.ok(verbs.out.split('\n').includes(verb), verb)
  const options = await bisque(['completion', 'bash', 'build', '--'])
  for (const option of ['--profile', '--set', '--offline', '--json']) assert.ok(options.out.split('\n').includes(option), option)
})

test('bash completes through the script', async (t) => {
  const directory = temporary(t)
  const { out } = await bisque(['completion', 'bash'])
  writeFileSync(join(directory, 'completion'), out)
  writeFileSync(join(directory, 'bisque'), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`, { mode: 0o755 })
  const script = `PATH=$1:$PATH; source "$1/completion"; COMP_WORDS=(bisque su); COMP_CWORD=1; _bisque; echo "$COMPREPLY"`
  assert.equal(execFileSync('bash', ['-c', script, 'bash', directory], { encoding: 'utf8' }).trim(), 'summary')
})

test('Ctrl-C ends a verb at once with 130', async (t) => {
  const directory = temporary(t)
  // A recipe that takes its time, as a recipe may: it is a program.
  writeFileSync(
    join(directory, 'recipe.ts'),
    "process.stdout.write('begun')\nawait new Promise((f) => setTimeout(f, 20_000))\nexport default {}\n",
  )
  const child = spawn(process.execPath, [MAIN, 'summary', directory], { stdio: ['ignore', 'pipe', 'inherit'] })
  child.stdout.once('data', () => child.kill('SIGINT'))
  const started = Date.now()
  assert.equal(await new Promise((resolve) => child.on('exit', resolve)), 130)
  assert.ok(Date.now() - started < 10_000)
})

test('the template of init is the recipe of the example that tests bake', () => {
  assert.equal(readFileSync('templates/minimal/recipe.ts', 'utf8'), readFileSync('examples/minimal/recipe.ts', 'utf8'))
})
