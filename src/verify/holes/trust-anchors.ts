/** Certificates in the system that systemd lets images be signed by, where the kernel does not know the signer. */
import { Fault } from '../../base/fault.ts'
import { readCertificate } from '../../formats/x509.ts'
import type { Finding } from '../link.ts'
import { includesBytes, nameOf } from '../trust.ts'
import { allFiles, type SystemFacts } from './facts.ts'
import { configFiles, configFolders, type Files, shown } from './files.ts'

export function checkAnchors(facts: SystemFacts, { evidence, wrong }: Finding): void {
  let count = 0
  for (const files of allFiles(facts)) {
    for (const { where, certificate } of certificatesOf(files)) {
      count++
      const name = describe(certificate)
      if (certificate && includesBytes(facts.trusted, certificate)) evidence(`${where} is ${name}`)
      else
        wrong(
          `${where} lets ${name} sign images, whom the chain of trust does not know`,
          `remove ${where.replace(/ of .*/, '')}, or sign with a certificate of db or verity`,
        )
    }
  }
  if (count === 0) evidence('none in verity.d: only the keyrings of the kernel count')
}

function certificatesOf(files: Files): { where: string; certificate: Uint8Array | undefined }[] {
  const folders = [...configFolders('verity.d'), 'run/verity.d']
  return configFiles(files, folders, '.crt').map(({ path, text }) => ({ where: shown(files, path), certificate: derOf(text) }))
}

function derOf(pem: string): Uint8Array | undefined {
  try {
    return readCertificate(pem).raw
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    return undefined
  }
}

const describe = (certificate: Uint8Array | undefined): string =>
  certificate ? nameOf(certificate) : 'somebody who cannot be read'
