import { merge, object, or } from '@optique/core/constructs'
import { message } from '@optique/core/message'
import { withDefault } from '@optique/core/modifiers'
import { command, constant, option } from '@optique/core/primitives'
import { integer } from '@optique/core/valueparser'
import { formatSize } from '../../base/size.ts'
import { examples } from '../options.ts'
import { openEnv, type Run } from '../session.ts'

export const parser = command(
  'cache',
  or(
    command('show', object({ verb: constant('cache show') }), {
      brief: message`Show what is cached`,
      footer: examples(['bisque cache show', 'where the cache lies and how large it is']),
    }),
    command(
      'prune',
      merge(
        object({ verb: constant('cache prune') }),
        object({
          days: withDefault(
            option('--days', integer({ metavar: 'N', min: 0 }), {
              description: message`Keep what was used in the last N days; 30 by default.`,
            }),
            30,
          ),
        }),
      ),
      {
        brief: message`Remove what was not used lately`,
        footer: examples(
          ['bisque cache prune', 'keep the last 30 days'],
          ['bisque cache prune --days 0', 'remove all but what was used in the last hour'],
        ),
      },
    ),
  ),
  {
    brief: message`Show or prune the cache`,
    description: message`The cache holds packages, indexes and finished stages by digest. Anything in it can be removed; it is fetched or made again.`,
    footer: examples(['bisque cache show', 'how large it is'], ['bisque cache prune', 'remove what was not used for 30 days']),
  },
)

export type CacheOptions = { verb: 'cache show' } | { verb: 'cache prune'; days: number }

export const run: Run<CacheOptions> = async (options, session) => {
  const { prune, usage } = await import('../../store/prune.ts')
  const { store } = await openEnv(session)
  if (options.verb === 'cache show') {
    const used = await usage(store)
    const lines = [session.cache, `  ${formatSize(used.blobBytes)} in ${used.blobs} files, ${used.keys} remembered results`]
    if (used.unfinished > 0) lines.push(`  ${formatSize(used.unfinishedBytes)} in ${used.unfinished} interrupted downloads`)
    return { result: { cache: session.cache, ...used }, text: lines.join('\n') }
  }
  const nowMs = Date.now()
  const pruned = await prune(store, { nowMs, unusedSinceMs: nowMs - options.days * 86_400_000 })
  const text = `Removed ${pruned.removed} files, ${formatSize(pruned.removedBytes)}; kept ${formatSize(pruned.keptBytes)}`
  return { result: { cache: session.cache, ...pruned }, text }
}
