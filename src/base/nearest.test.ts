import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nearest } from './nearest.ts'

test('nearest() finds what was meant and nothing when nothing is close', () => {
  const names = ['packages', 'packageDirectories', 'hostname', 'seed']
  assert.equal(nearest('pakages', names), 'packages')
  assert.equal(nearest('Packages', names), 'packages')
  assert.equal(nearest('hostnmae', names), 'hostname')
  assert.equal(nearest('sede', names), 'seed')
  assert.equal(nearest('kernel', names), undefined)
  assert.equal(nearest('', names), undefined)
})
