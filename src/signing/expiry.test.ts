import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EPOCH, testKeys } from '../../test/keys.ts'
import { readCertificate } from '../formats/x509.ts'
import { expiryOf, expiryWarnings } from './expiry.ts'

const { signers } = await testKeys()
const { certificate } = signers.db
const end = readCertificate(certificate).validToDate.getTime() / 1000
const DAY = 86_400

test('expiryOf() tells what ends within the threshold, to the second', () => {
  assert.equal(expiryOf(certificate, EPOCH).state, 'valid')
  assert.deepEqual(expiryOf(certificate, end - 90 * DAY), { notAfter: end, daysLeft: 90, state: 'valid' })
  assert.deepEqual(expiryOf(certificate, end - 90 * DAY + 1), { notAfter: end, daysLeft: 89, state: 'ends soon' })
  assert.equal(expiryOf(certificate, end - 90 * DAY + 1, 30).state, 'valid')
  assert.deepEqual(expiryOf(certificate, end), { notAfter: end, daysLeft: 0, state: 'ends soon' })
  assert.deepEqual(expiryOf(certificate, end + 1), { notAfter: end, daysLeft: -1, state: 'expired' })
})

test('expiryWarnings() says nothing of what is valid, and names what is not', () => {
  const all = [
    { name: 'db', certificate },
    { name: 'pk', certificate: signers.pk.certificate },
  ]
  assert.deepEqual(expiryWarnings(all, EPOCH), [])
  assert.deepEqual(expiryWarnings(all, end - DAY), [
    `db: expires ${new Date(end * 1000).toISOString().slice(0, 10)}, in 1 days`,
    `pk: expires ${new Date(end * 1000).toISOString().slice(0, 10)}, in 1 days`,
  ])
  assert.match(expiryWarnings([all[0]!], end + DAY)[0]!, /^db: expired 2036-/)
})
