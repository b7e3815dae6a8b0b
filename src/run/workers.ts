/**
 * A pool of worker threads for work that fills a processor: compressing and hashing.
 *
 * A task is a function exported by a module, named by the module's own address, so that it runs the same from
 * TypeScript sources and from emitted JavaScript. Its argument and result are copied between threads, except for
 * what the task wraps in `moved()`. Callers bound memory by how many runs they keep under way.
 */
import { availableParallelism } from 'node:os'
import { isMainThread, parentPort, type Transferable, Worker, workerData } from 'node:worker_threads'
import { FAULTS, Fault, type FaultCode } from '../base/fault.ts'

/** A function another thread can find: an export of the module at `module`. */
export interface Task<A, R> {
  readonly module: string
  readonly name: string
  /** Never set: carries the types. */
  readonly types?: (argument: A) => R
}

export interface Workers {
  /** Number of threads. */
  readonly size: number
  /** Runs a task on the next free thread, in order of calls. Rejects with what the task threw. */
  run<A, R>(task: Task<A, R>, argument: A): Promise<R>
  /** Ends the threads; runs still under way reject. */
  close(): Promise<void>
}

/** Names an exported function of a module: `taskOf(import.meta.url, compressRun)`. */
export function taskOf<A, R>(module: string, run: (argument: A) => R | Moved<R> | Promise<R | Moved<R>>): Task<A, R> {
  return { module, name: run.name }
}

/** A result whose buffers go to the caller's thread without being copied. */
export class Moved<R> {
  readonly result: R
  readonly buffers: readonly Transferable[]
  constructor(result: R, buffers: readonly Transferable[]) {
    this.result = result
    this.buffers = buffers
  }
}

export const moved = <R>(result: R, buffers: readonly Transferable[]): Moved<R> => new Moved(result, buffers)

/** Threads start when there is work for them and never keep the process alive while they have none. */
export function startWorkers(size: number = availableParallelism()): Workers {
  const seats: Seat[] = Array.from({ length: Math.max(1, size) }, () => ({ worker: undefined, job: undefined }))
  const queue: Job[] = []
  let next = 0
  let closed = false

  const serve = () => {
    for (const seat of seats) {
      if (queue.length === 0) return
      if (seat.job === undefined) occupy(seat, queue.shift()!, serve)
    }
  }
  return {
    size: seats.length,
    run: <A, R>(task: Task<A, R>, argument: A) =>
      new Promise<R>((resolve, reject) => {
        if (closed) return reject(new Error('the workers are closed'))
        queue.push({ id: next++, task, argument, resolve: resolve as (result: unknown) => void, reject })
        serve()
      }),
    async close() {
      closed = true
      const ended = new Error('the workers were closed')
      for (const job of queue.splice(0)) job.reject(ended)
      for (const seat of seats) seat.job?.reject(ended)
      await Promise.all(seats.map((seat) => seat.worker?.terminate()))
    },
  }
}

/** Runs `body` with the pool given, or with one of so many threads that is closed afterwards, whatever happens. */
export async function withWorkers<T>(given: Workers | number | undefined, body: (workers: Workers) => Promise<T>): Promise<T> {
  if (typeof given === 'object') return await body(given)
  const workers = startWorkers(given)
  try {
    return await body(workers)
  } finally {
    await workers.close()
  }
}

interface Job {
  id: number
  task: Task<any, any>
  argument: unknown
  resolve: (result: unknown) => void
  reject: (error: unknown) => void
}

interface Seat {
  worker: Worker | undefined
  job: Job | undefined
}

type Answer = { result: unknown } | { error: Thrown }

/** An error as it crosses threads: structured cloning would lose a Fault's code and hint. */
interface Thrown {
  message: string
  stack: string | undefined
  code?: string | undefined
  hint?: string | undefined
}

function occupy(seat: Seat, job: Job, freed: () => void): void {
  seat.job = job
  seat.worker ??= hire(seat, freed)
  seat.worker.ref()
  try {
    seat.worker.postMessage({ module: job.task.module, name: job.task.name, argument: job.argument })
  } catch (error) {
    leave(seat)
    job.reject(error)
  }
}

function hire(seat: Seat, freed: () => void): Worker {
  // No flags of the main thread: --eval's and --test's make no sense in a worker.
  const worker = new Worker(new URL(import.meta.url), { workerData: { [MARK]: true }, execArgv: [] })
  worker.on('message', (answer: Answer) => {
    const job = leave(seat)
    if ('error' in answer) job?.reject(caught(answer.error))
    else job?.resolve(answer.result)
    freed()
  })
  const lost = (error: unknown) => {
    if (seat.worker !== worker) return
    seat.worker = undefined
    leave(seat)?.reject(error)
    freed()
  }
  worker.on('error', lost)
  worker.on('exit', (code) => lost(new Error(`worker thread exited with ${code}`)))
  return worker
}

function leave(seat: Seat): Job | undefined {
  const job = seat.job
  seat.job = undefined
  seat.worker?.unref()
  return job
}

function caught(thrown: Thrown): Error {
  const { code } = thrown
  if (code !== undefined && code in FAULTS)
    return new Fault(code as FaultCode, thrown.message, thrown.hint === undefined ? {} : { hint: thrown.hint })
  const error = Object.assign(new Error(thrown.message), code === undefined ? {} : { code })
  if (thrown.stack !== undefined) error.stack = thrown.stack
  return error
}

function thrownBy(error: unknown): Thrown {
  if (!(error instanceof Error)) return { message: String(error), stack: undefined }
  const { code, hint } = error as { code?: unknown; hint?: unknown }
  return {
    message: error.message,
    stack: error.stack,
    code: typeof code === 'string' ? code : undefined,
    hint: typeof hint === 'string' ? hint : undefined,
  }
}

const MARK = 'bisque-worker'

/** The other end: this same module, when it is a worker's entry. */
async function answer(order: { module: string; name: string; argument: unknown }): Promise<void> {
  try {
    const exports: Record<string, unknown> = await import(order.module)
    const run = exports[order.name]
    if (typeof run !== 'function') throw new Error(`${order.module} exports no function ${order.name}`)
    const result: unknown = await run(order.argument)
    if (result instanceof Moved) parentPort!.postMessage({ result: result.result }, [...result.buffers])
    else parentPort!.postMessage({ result })
  } catch (error) {
    parentPort!.postMessage({ error: thrownBy(error) })
  }
}

if (!isMainThread && workerData?.[MARK] === true) parentPort!.on('message', answer)
