import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '../base/fault.ts'
import { formatPkcs11Uri, isPkcs11Uri, parsePkcs11Uri } from './pkcs11-uri.ts'

test('parsePkcs11Uri() reads the examples of RFC 7512 that name one key', () => {
  assert.deepEqual(parsePkcs11Uri('pkcs11:'), { query: {} })
  assert.deepEqual(
    parsePkcs11Uri(
      'pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin',
    ),
    {
      query: {
        token: 'The Software PKCS#11 Softtoken',
        serial: '',
        manufacturer: 'Snake Oil, Inc.',
        model: '1.0',
        object: 'my-certificate',
        id: '69953e5cf4bdec91',
      },
      pinSource: 'file:/etc/token_pin',
    },
  )
  assert.deepEqual(parsePkcs11Uri('pkcs11:slot-id=327;object=caf%C3%A9?module-name=mypkcs11&module-path=/opt/a/b.so'), {
    query: { slotId: 327, object: 'café' },
    moduleName: 'mypkcs11',
    modulePath: '/opt/a/b.so',
  })
})

test('parsePkcs11Uri() refuses a PIN in the URI and never repeats it', () => {
  for (const text of [
    'pkcs11:object=a?pin-value=7351',
    'pkcs11:pin-value=7351;object=a',
    'pkcs11:object=a?module-path=/x&pin-value=7351',
  ])
    assert.throws(
      () => parsePkcs11Uri(text),
      (e) =>
        e instanceof Fault &&
        /pin-value: a PIN there is seen/.test(e.message) &&
        !/7351/.test(`${e.message}${e.hint}${e.stack}`) &&
        /pin-source/.test(e.hint!),
    )
})

test('parsePkcs11Uri() refuses what it would have to guess', () => {
  for (const [text, why] of [
    ['object=a', /it is no PKCS#11 URI/],
    ['pkcs11:object=a;object=b', /object is given twice/],
    ['pkcs11:objekt=a', /"objekt" is not known, expected token, serial,/],
    ['pkcs11:library-version=3', /"library-version" is not known/],
    ['pkcs11:object', /"object" is not known/],
    ['pkcs11:object=a b', /the value of object is not percent-encoded/],
    ['pkcs11:object=%zz', /not percent-encoded/],
    ['pkcs11:slot-id=one', /slot-id=one is no number/],
    ['pkcs11:type=public', /type=public can neither sign nor vouch/],
    ['pkcs11:object=a?x=1', /"x" is not known, expected module-path/],
    ['pkcs11:object=a?module-path=/x?y', /more than one "\?"/],
    [`pkcs11:object=${'a'.repeat(5000)}`, /it is no PKCS#11 URI/],
  ] as const)
    assert.throws(
      () => parsePkcs11Uri(text),
      (e) => e instanceof Fault && why.test(e.message),
      text,
    )
})

test('formatPkcs11Uri() shows what parsePkcs11Uri() reads again, without the PIN', () => {
  const value = fc.string({ maxLength: 20, unit: 'grapheme' })
  const query = fc.record(
    {
      token: value,
      object: value,
      slotId: fc.nat(),
      id: fc.uint8Array({ minLength: 1, maxLength: 8 }).map((id) => Buffer.from(id).toString('hex')),
    },
    { requiredKeys: [], noNullPrototype: true },
  )
  fc.assert(
    fc.property(query, (query) => {
      const shown = formatPkcs11Uri({ query, pinSource: '/secret' })
      assert.deepEqual(parsePkcs11Uri(shown), { query })
    }),
  )
})

test('parsePkcs11Uri() throws nothing but Faults', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 80 }), (text) => {
      try {
        parsePkcs11Uri(`pkcs11:${text}`)
      } catch (error) {
        assert.ok(error instanceof Fault)
      }
    }),
  )
  assert.ok(isPkcs11Uri('PKCS11:object=a') && !isPkcs11Uri('keys/pkcs11:'))
})
