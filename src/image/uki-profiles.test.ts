import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '../base/fault.ts'
import { formatProfile, ukiProfiles } from './uki-profiles.ts'

test('formatProfile() quotes all but letters and digits', () => {
  assert.equal(formatProfile({ ID: 'live', TITLE: 'Live System' }), 'ID=live\nTITLE="Live System"\n')
  assert.equal(formatProfile({ ID: 'factory-reset', TITLE: 'Zurücksetzen' }), 'ID="factory-reset"\nTITLE=Zurücksetzen\n')
})

test("ukiProfiles() puts a profile's words behind those of the UKI", () => {
  const settings = [{ profile: { ID: 'debug' }, cmdline: ['debug', 'rw'], signExpectedPcr: false }]
  assert.deepEqual(ukiProfiles(settings, ['usrhash=00', 'quiet']), [
    { id: 'debug', text: 'ID=debug\n', cmdline: 'usrhash=00 quiet debug rw', signed: false },
  ])
})

test('ukiProfiles() refuses profiles that a boot menu could not tell apart or hold', () => {
  const refused: [Record<string, string>[], RegExp][] = [
    [[{ ID: 'a' }, { ID: 'a' }], /two profiles with ID a/],
    [[{ TITLE: 'none' }], /profile ID "" must be/],
    [[{ ID: '../x' }], /profile ID "\.\.\/x" must be/],
    [[{ ID: 'main' }], /"main" is that of the default profile/],
    [[{ ID: 'a', TITLE: 'say "hi"' }], /TITLE has a character/],
    [[{ ID: 'a', TITLE: 'two\nID=b' }], /TITLE has a character/],
    [[{ 'ID=b\nID': 'a' }], /is no name/],
  ]
  for (const [profiles, why] of refused) {
    const settings = profiles.map((profile) => ({ profile, cmdline: [], signExpectedPcr: true }))
    assert.throws(
      () => ukiProfiles(settings, []),
      (e) => e instanceof Fault && why.test(e.message),
      String(why),
    )
  }
  const broken = [{ profile: { ID: 'a' }, cmdline: ['x\ny'], signExpectedPcr: true }]
  assert.throws(() => ukiProfiles(broken, []), /command line of profile a has control character/)
})
