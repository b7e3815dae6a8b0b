/** Bakes a folder in the namespace: `node driver.ts FOLDER OUTPUT CACHE`. Locks it first. */
import { Report } from '../../src/base/report.ts'
import { build } from '../../src/build/build.ts'
import { lockRecipe } from '../../src/build/lock.ts'
import { loadRecipe } from '../../src/recipe/recipe.ts'
import { openStore } from '../../src/store/store.ts'

const [folder = '', output = '', cache = ''] = process.argv.slice(2)
const report = new Report(() => {})
const env = { cache, store: await openStore(cache), report, now: new Date(), offline: false }
const recipe = await loadRecipe(folder)
await lockRecipe(recipe, {}, env)
await build(recipe, { output, relock: true }, env)
