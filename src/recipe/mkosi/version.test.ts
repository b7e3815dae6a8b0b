import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fulfils } from './version.ts'

test('fulfils() reads every operator, and equality without one', () => {
  const holding = ['>=1.2', '<=1.2', '==1.2', '1.2', '!=1.3', '>1.1', '<1.10', '>1.2~rc1']
  for (const wanted of holding) assert.ok(fulfils('1.2', wanted), wanted)
  for (const wanted of ['>1.2', '<1.2', '1.3', '!=1.2', '==1', '>=1.10']) assert.ok(!fulfils('1.2', wanted), wanted)
})
