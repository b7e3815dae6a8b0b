/** What recipes and programs import from `bisque`. */
export { Fault, type FaultCode } from './base/fault.ts'
export { type Event, Report } from './base/report.ts'
export {
  defineRecipe,
  type LoadOptions,
  loadRecipe,
  type Recipe,
  type RecipeInput,
  requestDigest,
} from './recipe/recipe.ts'
export type { RecipeSettings, Settings } from './recipe/schema.ts'
