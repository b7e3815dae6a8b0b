/** A real HTTP server for a test, on 127.0.0.1, gone when the test is. */
import { hash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'

export interface Served {
  /** `http://127.0.0.1:PORT` */
  url: string
  /** `GET /path` of every request so far, with its Range where it had one. */
  requests: string[]
}

export type Answer = (path: string, request: IncomingMessage, response: ServerResponse) => void

/** Serves files by path (with ranges, ETags and 404), or whatever the answers of single paths do instead. */
export async function serve(
  t: TestContext,
  files: ReadonlyMap<string, Uint8Array> = new Map(),
  answers: Record<string, Answer> = {},
): Promise<Served> {
  const requests: string[] = []
  const server = createServer((request, response) => {
    const path = decodeURIComponent((request.url ?? '').slice(1))
    requests.push([request.method, `/${path}`, request.headers.range].filter((word) => word !== undefined).join(' '))
    response.on('error', () => {})
    const answer = answers[path] ?? answers['*']
    if (answer) answer(path, request, response)
    else sendFile(files.get(path), request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests }
}

/** What a well-behaved server does. */
export function sendFile(bytes: Uint8Array | undefined, request: IncomingMessage, response: ServerResponse): void {
  if (!bytes) return void response.writeHead(404).end('no such file')
  const etag = `"${hash('sha256', bytes)}"`
  if (request.headers['if-none-match'] === etag) return void response.writeHead(304, { etag }).end()
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  const whole = start === 0 || (request.headers['if-range'] ?? etag) !== etag
  if (!whole && start >= bytes.length) return void response.writeHead(416).end()
  if (whole) response.writeHead(200, { etag, 'content-length': bytes.length })
  else {
    const range = `bytes ${start}-${bytes.length - 1}/${bytes.length}`
    response.writeHead(206, { etag, 'content-length': bytes.length - start, 'content-range': range })
  }
  response.end(whole ? bytes : bytes.subarray(start))
}
