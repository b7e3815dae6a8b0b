// Runs benchmarks by name: `npm run bench -- NAME…`; without a name, lists them.
import { readdirSync, readFileSync } from 'node:fs'

const names = readdirSync(import.meta.dirname)
  .filter((file) => /^(?!main|mkosi|peer|processes).*\.ts$/.test(file))
  .map((file) => file.replace('.ts', ''))
  .sort()
const wanted = process.argv.slice(2)
for (const name of wanted) {
  if (!names.includes(name)) {
    console.error(`There is no benchmark "${name}". There are: ${names.join(', ')}`)
    process.exit(2)
  }
}
if (wanted.length === 0) {
  for (const name of names) {
    const [, about = ''] =
      /\/\*\*\s*(?:\* )?(.*?)(?: \*\/)?$/m.exec(readFileSync(`${import.meta.dirname}/${name}.ts`, 'utf8')) ?? []
    console.log(`${name.padEnd(12)} ${about}`)
  }
}
for (const name of wanted) await (await import(`./${name}.ts`)).run()
