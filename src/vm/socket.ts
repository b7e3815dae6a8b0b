/** A Unix socket for one peer: listening is done before the peer starts, so neither has to try again. */
import { createServer, type Socket } from 'node:net'
import { Fault } from '../base/fault.ts'

export interface Listening {
  /** The first peer; others are turned away. */
  readonly connected: Promise<Socket>
  /** Stops listening and hangs up. */
  close(): void
}

/** `sun_path` of unix(7) holds 108 bytes with the NUL. */
const MOST_PATH_BYTES = 107

export function listen(path: string): Promise<Listening> {
  if (Buffer.byteLength(path) > MOST_PATH_BYTES)
    throw new Fault('host', `Cannot listen on ${path}: longer than ${MOST_PATH_BYTES} bytes`, { hint: 'export TMPDIR=/tmp' })
  let peer: Socket | undefined
  const server = createServer()
  const connected = new Promise<Socket>((resolve) => {
    server.on('connection', (socket) => {
      if (peer) return socket.destroy()
      peer = socket
      server.close()
      resolve(socket)
    })
  })
  return new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(path, () =>
      resolve({
        connected,
        close() {
          server.close()
          peer?.destroy()
        },
      }),
    )
  })
}
