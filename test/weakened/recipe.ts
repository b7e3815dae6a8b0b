import { defineRecipe } from 'bisque'
import minimal from '../../examples/minimal/recipe.ts'

// examples/minimal with guards taken away, for `verify` and `attack` to find: no IPE policy, a root hash that nobody signed
// (repart/ has no place for a signature), an image policy that takes anything, a root in memory, where programs run.
// The lock is that of examples/minimal.
export default defineRecipe({
  ...minimal,
  imageId: 'Weakened',
  hostname: 'weakened',
  ipe: 'off',
  verity: 'hash',
  root: 'memory',
  repartDirectories: ['repart'],
  kernelCommandLine: ['console=ttyS0', 'loglevel=4', 'systemd.image_policy=*'],
})
