import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { declaredAccounts, formatSysusers, parseGroup, parsePasswd, pinAccounts } from './accounts.ts'

const PASSWD = `root:x:0:0:root:/root:/bin/bash
messagebus:x:997:997:System Message Bus:/nonexistent:/usr/sbin/nologin
tss:x:101:102:TPM:/var/lib/tpm:/bin/false
_odd:x:812:100:50% "odd", really:/var/lib/odd:/bin/sh
`
const GROUP = 'root:x:0:\nusers:x:100:\nshadow:x:42:\nmessagebus:x:997:\ntss:x:102:\nadm:x:4:_odd\n'

test('formatSysusers() leaves out what other files declare, and keeps memberships', () => {
  const declared = declaredAccounts('g users 100 -\nu root 0 - /root\n# u ghost\nu! messagebus - "Bus"\nu tss - -\n')
  assert.equal(
    formatSysusers(parsePasswd(PASSWD), parseGroup(GROUP), declared),
    'g shadow 42\ng adm 4\nu _odd 812:100 "50%% \\"odd\\", really" /var/lib/odd /bin/sh\nm _odd adm\n',
  )
})

test('pinAccounts() gives every automatic number the one the tree was built with', () => {
  const text =
    '# comment\nu messagebus - "System Message Bus" /nonexistent\ng shadow -\nu unknown - -\nu! _odd - -\ng users 100 -\nu tss - "TPM"\n'
  assert.equal(
    pinAccounts(text, parsePasswd(PASSWD), parseGroup(GROUP)),
    '# comment\nu messagebus 997 "System Message Bus" /nonexistent\ng shadow 42\nu unknown - -\nu! _odd 812:100 -\ng users 100 -\ng tss 102\nu tss 101:102 "TPM"\n',
  )
})

test('parsePasswd() refuses a line with too few fields or a number that is none', () => {
  assert.throws(() => parsePasswd('root:x:0:0\n'), Fault)
  assert.throws(() => parsePasswd('root:x:zero:0:::\n'), /number of account "root": got "zero"/)
})

oracle('systemd-sysusers', 'systemd-sysusers makes the accounts of the tree again', async (_t, judge) => {
  mkdirSync(join(judge.dir, 'usr/lib/sysusers.d'), { recursive: true })
  mkdirSync(join(judge.dir, 'etc'))
  const [users, groups] = [parsePasswd(PASSWD), parseGroup(GROUP)]
  const package_ = pinAccounts('u tss - "TPM" /var/lib/tpm /bin/false\n', users, groups)
  writeFileSync(join(judge.dir, 'usr/lib/sysusers.d/tpm.conf'), package_)
  writeFileSync(join(judge.dir, 'usr/lib/sysusers.d/bisque.conf'), formatSysusers(users, groups, declaredAccounts(package_)))
  await judge.run(['systemd-sysusers', `--root=${judge.dir}`])
  const made = parsePasswd(readFileSync(join(judge.dir, 'etc/passwd'), 'utf8'))
  assert.deepEqual(
    made.sort((a, b) => a.uid - b.uid).map((user) => [user.name, user.uid, user.gid, user.gecos, user.home, user.shell]),
    [
      ['root', 0, 0, 'root', '/root', '/bin/bash'],
      ['tss', 101, 102, 'TPM', '/var/lib/tpm', '/bin/false'],
      ['_odd', 812, 100, '50% "odd", really', '/var/lib/odd', '/bin/sh'],
      ['messagebus', 997, 997, 'System Message Bus', '/nonexistent', '/usr/sbin/nologin'],
    ],
  )
  assert.deepEqual(
    parseGroup(readFileSync(join(judge.dir, 'etc/group'), 'utf8')).find((group) => group.name === 'adm')?.members,
    ['_odd'],
  )
})
