import assert from 'node:assert/strict'
import { test } from 'node:test'
import { oracle } from '../../test/oracle.ts'
import { Fault } from '../base/fault.ts'
import { crypt } from './sha512-crypt.ts'

test('crypt() gives the hash of the specification', () => {
  assert.equal(
    crypt('Hello world!', 'saltstring'),
    '$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1',
  )
})

test('crypt() refuses a salt that would end the field', () => {
  assert.throws(() => crypt('x', 'a:b'), Fault)
  assert.throws(() => crypt('x', ''), Fault)
})

oracle('openssl', 'openssl passwd hashes the same', async (_t, judge) => {
  for (const password of ['x', 'soup', 'ä'.repeat(40), 'a'.repeat(127)]) {
    const { stdout } = await judge.run(['openssl', 'passwd', '-6', '-salt', 'abcdef0123456789', password])
    assert.equal(crypt(password, 'abcdef0123456789'), stdout.trim())
  }
})
