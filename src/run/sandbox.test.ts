import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { start } from './process.ts'
import { runInSandbox, type Sandbox, startInSandbox } from './sandbox.ts'

/** A root that borrows the programs of the host: links for what is merged into /usr, a bind for /usr itself. */
function world(t: TestContext): Sandbox & { root: string; dir: string } {
  const dir = mkdtempSync(join(tmpdir(), 'bisque-sandbox-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const root = `${dir}/root`
  mkdirSync(`${root}/usr`, { recursive: true })
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, `${root}/${name}`)
  return { dir, root, binds: [{ source: '/usr', target: '/usr' }], tmpfs: ['/tmp', '/run'] }
}
const shell = async (sandbox: Sandbox, script: string) =>
  await runInSandbox(sandbox, ['sh', '-c', script], { allowFailure: true })

test('runInSandbox() shows no path of the host', async (t) => {
  const sandbox = world(t)
  writeFileSync(`${sandbox.dir}/secret`, 'secret')
  const { stdout } = await shell(
    sandbox,
    `ls /; cat ${sandbox.dir}/secret /../..${sandbox.dir}/secret /proc/1/root${sandbox.dir}/secret 2>/dev/null; umount -l / 2>/dev/null; ls /`,
  )
  const once = ['bin', 'dev', 'lib', 'lib64', 'proc', 'run', 'sbin', 'tmp', 'usr'].join('\n')
  assert.equal(stdout, `${once}\n${once}\n`)
})

test('runInSandbox() shows only the processes inside, no network, and no rights over the host', async (t) => {
  const { stdout } = await shell(
    world(t),
    'ls /proc | grep -c "^[0-9]"; grep -c : /proc/net/dev; mknod /tmp/disk b 8 0 || echo no devices; cat /proc/sys/kernel/hostname; pwd; umask',
  )
  assert.equal(stdout, '4\n1\nno devices\nlocalhost\n/\n0022\n'.replace('4', stdout.slice(0, 1)))
  assert.ok(Number(stdout.slice(0, 1)) <= 4)
})

test('runInSandbox() writes only where it may', async (t) => {
  const sandbox = world(t)
  mkdirSync(`${sandbox.dir}/work`)
  const binds = [...sandbox.binds!, { source: `${sandbox.dir}/work`, target: '/work', writable: true }]
  const script = 'echo a >/work/a; echo b >/usr/b || echo no; echo c >/c || echo no; echo d >/tmp/d; echo e >/dev/null'
  assert.equal((await shell({ ...sandbox, binds }, script)).stdout, 'no\nno\n')
  assert.equal(readFileSync(`${sandbox.dir}/work/a`, 'utf8'), 'a\n')
  assert.deepEqual(readdirSync(`${sandbox.root}/tmp`), [])
  assert.equal((await shell({ ...sandbox, writable: true }, 'echo c >/c')).exitCode, 0)
  assert.equal(readFileSync(`${sandbox.root}/c`, 'utf8'), 'c\n')
})

test('runInSandbox() gives the program the environment it is given and nothing of ours', async (t) => {
  process.env['BISQUE_SECRET'] = 'secret'
  const { stdout } = await runInSandbox({ ...world(t), env: { A: 'b', HOME: '/' }, workdir: '/usr' }, ['env'])
  assert.deepEqual(stdout.trim().split('\n').toSorted(), [
    'A=b',
    'HOME=/',
    'LANG=C.UTF-8',
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'PWD=/usr',
    'TERM=dumb',
    'container=bisque',
  ])
  assert.ok(!stdout.includes('secret'))
})

test('runInSandbox() makes mount points inside the root, whatever its links say', async (t) => {
  const sandbox = world(t)
  mkdirSync(`${sandbox.dir}/outside`)
  symlinkSync(`${sandbox.dir}/outside`, `${sandbox.root}/work`)
  const binds = [...sandbox.binds!, { source: '/etc', target: '/work/etc' }]
  await shell({ ...sandbox, binds }, 'true')
  assert.deepEqual(readdirSync(`${sandbox.dir}/outside`), [])
})

test('runInSandbox() passes exit codes on and names a failing program', async (t) => {
  const sandbox = world(t)
  assert.equal((await shell(sandbox, 'exit 42')).exitCode, 42)
  await assert.rejects(runInSandbox(sandbox, ['sh', '-c', 'echo why >&2; exit 1']), {
    code: 'tool',
    message: /sh: it ended with exit code 1\n {2}why/,
  })
  await assert.rejects(runInSandbox({ ...sandbox, binds: [{ source: '/no/such', target: '/x' }] }, ['true']), {
    code: 'missing',
    message: /\/no\/such/,
  })
})

test('a sandbox leaves no process when the one who started it is killed', { timeout: 60_000 }, async (t) => {
  const { dir, ...sandbox } = world(t)
  const script = `import { startInSandbox } from ${JSON.stringify(new URL('sandbox.ts', import.meta.url).pathname)}
    startInSandbox(${JSON.stringify(sandbox)}, ['sh', '-c', 'setsid sleep 31536001 & setsid sleep 31536001']); console.log('on'); setInterval(() => {}, 1000)`
  const outer = start([process.execPath, '--input-type=module', '-e', script])
  t.after(() => outer.kill(0))
  await new Promise((resolve) => outer.stdout.once('data', resolve))
  for (let i = 0; i < 250 && sleepers().length < 2; i++) await sleep(20)
  assert.equal(sleepers().length, 2, dir)
  process.kill(outer.pid, 'SIGKILL')
  await outer.ended
  for (let i = 0; i < 250 && sleepers().length > 0; i++) await sleep(20)
  assert.deepEqual(sleepers(), [])
})

test('kill() of a sandboxed program lets it end by itself, then insists', { timeout: 60_000 }, async (t) => {
  const sandbox = world(t)
  const polite = startInSandbox(sandbox, ['sh', '-c', 'trap "exit 5" TERM; echo on; while :; do sleep 0.05; done'])
  t.after(() => polite.kill(0))
  await new Promise((resolve) => polite.stdout.once('data', resolve))
  assert.equal(await polite.kill(5000), 5)
  const deaf = startInSandbox(sandbox, ['sh', '-c', 'trap "" TERM; echo on; while :; do sleep 0.05; done'])
  t.after(() => deaf.kill(0))
  await new Promise((resolve) => deaf.stdout.once('data', resolve))
  assert.ok((await deaf.kill(100)) > 128)
})

/** Processes of this test, by a number nobody else sleeps for. */
const sleepers = () =>
  readdirSync('/proc').filter((pid) => {
    try {
      return (
        /^\d+$/.test(pid) &&
        existsSync(`/proc/${pid}/exe`) &&
        readFileSync(`/proc/${pid}/cmdline`, 'utf8') === 'sleep\x0031536001\0'
      )
    } catch {
      return false
    }
  })

test('runInSandbox() lays changes of an overlay aside and leaves its source as it is', async (t) => {
  const sandbox = world(t)
  const at = (name: string) => `${sandbox.dir}/${name}`
  for (const name of ['source', 'upper', 'work']) mkdirSync(at(name))
  writeFileSync(at('source/kept'), 'kept\n')
  const overlays = [{ source: at('source'), target: '/tmp/src', upper: at('upper'), work: at('work') }]
  const { stdout } = await shell(
    { ...sandbox, overlays },
    'cat /tmp/src/kept; { echo new >/tmp/src/new; } 2>/dev/null; ls /tmp/src',
  )
  // overlayfs leaves a folder that only root may look into
  if (existsSync(at('work/work'))) chmodSync(at('work/work'), 0o755)
  assert.match(stdout, /^kept\nkept\n(?:new\n)?$/)
  assert.deepEqual(readdirSync(at('source')), ['kept'])
})

test('runInSandbox() shows an overlay read-only where its name cannot be told to the kernel', async (t) => {
  const sandbox = world(t)
  const at = (name: string) => `${sandbox.dir}/${name}`
  for (const name of ['so,urce', 'upper', 'work']) mkdirSync(at(name))
  const overlays = [{ source: at('so,urce'), target: '/tmp/src', upper: at('upper'), work: at('work') }]
  const { stdout } = await shell({ ...sandbox, overlays }, 'touch /tmp/src/new 2>/dev/null || echo no')
  assert.equal(stdout, 'no\n')
})

test('runInSandbox() readies another root for chroot, with file systems of its own and what is shared', async (t) => {
  const sandbox = world(t)
  const other = `${sandbox.dir}/other`
  mkdirSync(`${other}/usr`, { recursive: true })
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, `${other}/${name}`)
  symlinkSync('/scratch', `${other}/tmp`)
  const script =
    'echo from-outside >/work/x; ls /other; test -e /other/proc/self && echo proc; cat /other/work/x; echo y >/other/made'
  const chroots = [{ root: other, target: '/other', shared: ['/work'] }]
  const { stdout } = await shell({ ...sandbox, tmpfs: [...sandbox.tmpfs!, '/work'], chroots }, script)
  assert.equal(stdout, 'bin\ndev\nlib\nlib64\nproc\nrun\nsbin\nscratch\ntmp\nusr\nwork\nproc\nfrom-outside\n')
  assert.equal(readFileSync(`${other}/made`, 'utf8'), 'y\n')
  assert.deepEqual(readdirSync(`${other}/run`), [])
})
