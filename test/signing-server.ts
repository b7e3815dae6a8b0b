/** A remote signer for tests: a real HTTPS server on this machine, with certificates made for it, backed by keys in memory. */
import { generateKeyPairSync } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type ServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import { attachCertificateSignature, prepareCertificate } from '../src/formats/x509.ts'
import { signerOf } from '../src/signing/file.ts'
import type { KeyRole, Purpose, Signers } from '../src/signing/signer.ts'

export interface Identity {
  key: string
  /** PEM. */
  certificate: string
}

/** A self-signed certificate that vouches for `localhost`, or for whoever a server takes it from. */
export async function makeIdentity(commonName = 'localhost'): Promise<Identity> {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const now = Math.floor(Date.now() / 1000)
  const validity = { notBefore: now - 3600, notAfter: now + 86_400 }
  const plan = {
    commonName,
    serialNumber: Uint8Array.of(1),
    ...validity,
    publicKey: pair.publicKey,
    authority: true,
    codeSigning: false,
  }
  const prepared = prepareCertificate(plan)
  const signature = await signerOf(pair.privateKey, new Uint8Array()).sign(prepared.digest, 'certificate')
  const der = Buffer.from(attachCertificateSignature(prepared, signature)).toString('base64')
  return {
    key: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    certificate: `-----BEGIN CERTIFICATE-----\n${der.match(/.{1,64}/g)!.join('\n')}\n-----END CERTIFICATE-----\n`,
  }
}

export interface Asked {
  method: string
  path: string
  headers: IncomingMessage['headers']
  body: Record<string, unknown>
}

export interface SigningServer extends AsyncDisposable {
  address: string
  asked: Asked[]
  /** Answers in the place of the signer, until it says no; changed at will. */
  first: ((asked: Asked, response: ServerResponse) => boolean | Promise<boolean>) | undefined
  /** Ends every connection. */
  stop(): Promise<void>
}

export async function startSigningServer(
  identity: Identity,
  signers: Signers,
  options: ServerOptions = {},
): Promise<SigningServer> {
  const asked: Asked[] = []
  const server = createServer({ key: identity.key, cert: identity.certificate, ...options }, async (request, response) => {
    let text = ''
    for await (const chunk of request) text += chunk
    const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)
    const one = { method: request.method!, path: request.url!, headers: request.headers, body }
    asked.push(one)
    if (await started.first?.(one, response)) return
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(await answerTo(one, signers)))
  })
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve))
  const stop = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  const { port } = server.address() as AddressInfo
  const address = `https://localhost:${port}/keys`
  const started: SigningServer = { address, asked, first: undefined, stop, [Symbol.asyncDispose]: stop }
  return started
}

/** What docs/signing.md says a signer answers. */
async function answerTo({ path, body }: Asked, signers: Signers): Promise<object> {
  const role = /^\/keys\/certificates\/(\w+)$/.exec(path)?.[1]
  if (role !== undefined) {
    const der = Buffer.from(signers[role as KeyRole].certificate).toString('base64')
    return { certificate: `-----BEGIN CERTIFICATE-----\n${der}\n-----END CERTIFICATE-----\n` }
  }
  const signature = await signers[body['role'] as KeyRole].sign(
    Buffer.from(body['digest'] as string, 'hex'),
    body['purpose'] as Purpose,
  )
  return { signature: Buffer.from(signature).toString('base64') }
}
