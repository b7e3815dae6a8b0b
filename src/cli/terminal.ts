/**
 * The live view of a Report: one line per step, with its time; steps of a step stand indented below it.
 *
 * On a terminal what runs is shown with the steps it has ended, redrawn in place at most every 80 ms and in one write;
 * once it ends as a whole, it stays. Elsewhere there is a plain line for each step as it ends, with the steps it is part of.
 */
import type { Event } from '../base/report.ts'
import { formatSize } from '../base/size.ts'

/** What is needed of a stream; `process.stderr` has it. */
export interface Screen {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
  rows?: number
}

export interface Terminal {
  show(event: Event): void
  /** Removes the running steps and gives the cursor back. Further events start anew. */
  stop(): void
}

interface Step {
  name: string
  parent: number
  depth: number
  startedMs: number
  /** Its final line, once it has ended or where it is a fact. */
  line?: string
  progress?: { done: number; total: number | undefined; unit: 'bytes' | 'files' | 'packages'; firstMs: number; first: number }
}

const FRAMES = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏'
const REDRAW_MS = 80
const PLAIN_WIDTH = 78

export function openTerminal(
  screen: Screen,
  { color, nowMs = () => performance.now() }: { color: boolean; nowMs?: () => number },
): Terminal {
  const live = screen.isTTY === true
  const steps = new Map<number, Step>()
  const paint = (code: number, text: string): string => (color ? `\x1b[${code}m${text}\x1b[0m` : text)
  let ended: string[] = []
  let drawn = 0
  let frame = 0
  let facts = 0
  let timer: NodeJS.Timeout | undefined

  const width = (): number => (live ? Math.max(20, Math.min(screen.columns ?? 80, 110) - 1) : PLAIN_WIDTH)
  const erase = (): string => (drawn > 0 ? `\x1b[${drawn}A\r` : '')

  function draw(): void {
    const rows = Math.max(1, (screen.rows ?? 24) - 2)
    const running = inTreeOrder(steps)
      .slice(-rows)
      .map((step) => step.line ?? runningLine(step))
    const lines = [...ended, ...running].map((line) => `${line}\x1b[K\n`)
    screen.write(`${erase()}\x1b[?25l${lines.join('')}\x1b[J`)
    ended = []
    drawn = running.length
  }

  function runningLine(step: Step): string {
    const mark = paint(36, FRAMES[frame % FRAMES.length]!)
    const time = formatMs(nowMs() - step.startedMs)
    return layout(mark, step.depth, step.name, progressText(step, nowMs()), time, width(), paint)
  }

  function print(line: string): void {
    if (!live) screen.write(`${line}\n`)
    else ended.push(line)
  }

  /** Keeps a line below the step it belongs to until that is over; without one, or on no terminal, it is printed at once. */
  function keep(parent: number, line: string): void {
    if (live && steps.has(parent)) steps.set(--facts, { name: '', parent, depth: 0, startedMs: 0, line })
    else print(line)
  }

  function end(id: number, step: Step, event: Extract<Event, { type: 'end' }>): void {
    if (!live) {
      const name = [...ancestors(step), step.name].join(' › ')
      print(endedLine({ ...step, name, depth: 0 }, event, width(), paint))
      steps.delete(id)
      return
    }
    step.line = endedLine(step, event, width(), paint)
    if (steps.has(step.parent)) return
    for (const below of inTreeOrder(steps, step.parent, id)) if (below.line !== undefined) print(below.line)
    forget(id)
  }

  function ancestors(step: Step): string[] {
    const parent = steps.get(step.parent)
    return parent === undefined ? [] : [...ancestors(parent), parent.name]
  }

  function forget(id: number): void {
    steps.delete(id)
    for (const [child, step] of steps) if (step.parent === id) forget(child)
  }

  function schedule(): void {
    if (!live || timer) return
    timer = setTimeout(() => {
      timer = undefined
      frame++
      draw()
      if (steps.size > 0) schedule()
    }, REDRAW_MS)
    timer.unref()
  }

  return {
    show(event) {
      if (event.type === 'start') {
        const depth = (steps.get(event.parent)?.depth ?? -1) + 1
        steps.set(event.step, { name: clean(event.name), parent: event.parent, depth, startedMs: nowMs() })
      } else if (event.type === 'progress') {
        const step = steps.get(event.step)
        if (step)
          step.progress = {
            firstMs: nowMs(),
            first: event.done,
            ...step.progress,
            done: event.done,
            total: event.total,
            unit: event.unit,
          }
      } else if (event.type === 'end') {
        const step = steps.get(event.step)
        if (step) end(event.step, step, event)
      } else {
        const depth = live ? (steps.get(event.step)?.depth ?? -1) + 1 : 0
        for (const line of factLines(event, depth, paint)) keep(event.step, line)
      }
      schedule()
    },
    stop() {
      clearTimeout(timer)
      timer = undefined
      steps.clear()
      if (!live) return
      if (drawn > 0 || ended.length > 0) draw()
      screen.write('\x1b[?25h')
      drawn = 0
    },
  }
}

/** Children below their parent, each group in order of its start; of one child of the top where `only` names it. */
function inTreeOrder(steps: ReadonlyMap<number, Step>, top = 0, only?: number): Step[] {
  const children = Map.groupBy(steps, ([, { parent }]) => (steps.has(parent) ? parent : top))
  const below = (parent: number): Step[] =>
    (children.get(parent) ?? []).flatMap(([id, step]) =>
      parent === top && only !== undefined && id !== only ? [] : [step, ...below(id)],
    )
  return below(top)
}

type Paint = (code: number, text: string) => string

function endedLine(step: Step, event: Extract<Event, { type: 'end' }>, width: number, paint: Paint): string {
  const mark = event.failed === undefined ? paint(32, '✓') : paint(31, '✗')
  const { progress } = step
  const done = progress && event.failed === undefined ? countText(progress.done, undefined, progress.unit) : ''
  return layout(mark, step.depth, step.name, done, formatMs(event.ms), width, paint)
}

function factLines(event: Extract<Event, { type: 'note' | 'artifact' }>, depth: number, paint: Paint): string[] {
  const indent = '  '.repeat(depth)
  if (event.type === 'artifact') return [`${indent}${paint(36, '→')} ${clean(event.name)}  ${paint(2, formatSize(event.size))}`]
  const mark = event.level === 'warning' ? paint(33, '!') : paint(2, '·')
  return clean(event.message)
    .split('\n')
    .map((line, i) => `${indent}${i === 0 ? mark : ' '} ${line}`)
}

/** `mark name … detail time`, the time at the right edge; the name is cut when there is no room. */
function layout(mark: string, depth: number, name: string, detail: string, time: string, width: number, paint: Paint): string {
  const indent = '  '.repeat(Math.min(depth, 6))
  const right = detail ? `${detail}  ${time.padStart(7)}` : time.padStart(7)
  const room = Math.max(8, width - indent.length - 2 - right.length - 1)
  const cut = name.length > room ? `${name.slice(0, room - 1)}…` : name.padEnd(room)
  return `${indent}${mark} ${cut} ${paint(2, right)}`
}

function progressText({ progress }: Step, nowMs: number): string {
  if (!progress) return ''
  const text = countText(progress.done, progress.total, progress.unit)
  const seconds = (nowMs - progress.firstMs) / 1000
  if (progress.unit !== 'bytes' || seconds < 0.5) return text
  return `${text}  ${formatSize(Math.round((progress.done - progress.first) / seconds))}/s`
}

function countText(done: number, total: number | undefined, unit: string): string {
  const shown = unit === 'bytes' ? formatSize : String
  const of = total === undefined ? shown(done) : `${shown(done)} of ${shown(total)}`
  return unit === 'bytes' ? of : `${of} ${unit}`
}

/** `12 ms`, `3.4 s`, `2:05 min`. */
export function formatMs(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')} min`
}

/** Names and messages may carry what a server or a package wrote: no control characters reach the terminal. */
export const clean = (text: string): string =>
  text.replaceAll('\t', '  ').replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, '�')
