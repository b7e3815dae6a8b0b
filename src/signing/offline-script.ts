/** How to sign what a folder of requests asks for, told to people: a shell script around openssl, and a README. */
import { shellWords } from '../base/shell-words.ts'
import { describe, digestName, keyName, type SigningRequest, signatureName } from './offline-requests.ts'

/** The one command that makes a signature. Any other program will do that signs a digest with RSA PKCS#1 v1.5. */
export const opensslCommand = (request: SigningRequest, folder = ''): string =>
  shellWords([
    ...['openssl', 'pkeyutl', '-sign', '-pkeyopt', 'digest:sha256', '-inkey', `${keyName(request)}.key`],
    ...['-in', `${folder}${digestName(request)}`, '-out', `${folder}${signatureName(request)}`],
  ])

/** What signs all that a key is asked for. */
export const signCommand = (folder: string, name: string): string =>
  shellWords([`${folder}/sign.sh`, name, `${name.toUpperCase().replace('-', '_')}_KEY`])

export const SIGN_SCRIPT = `#!/bin/sh
# Signs the digests in this folder that a key is asked for. Needs openssl 3, or 1.1.1.
#
#   sign.sh NAME KEY [OPTION...]
#
#   sign.sh db ~/secret/db.key
#   sign.sh db 'pkcs11:token=boot;object=db' -provider pkcs11
#
# NAME is the certificate's here: db for db.crt. Options go to "openssl pkeyutl" as they are.
# What is signed already, rightly, is left alone.
set -eu

if [ $# -lt 2 ]; then
  sed -n '2,/^set/s/^# \\{0,1\\}//p' "$0" >&2
  exit 2
fi
name=$1
key=$2
shift 2
case $key in
  /* | *:*) ;;
  *) key=$PWD/$key ;;
esac
cd "$(dirname "$0")"

right() {
  openssl pkeyutl -verify -certin -inkey "$name.crt" -pkeyopt digest:sha256 -in "$1" -sigfile "$2" >/dev/null 2>&1
}

if [ ! -f "$name.crt" ]; then
  echo "sign.sh: nothing here is to be signed by $name" >&2
  exit 1
fi
signed=0
for digest in [0-9]*-"$name"-*.digest; do
  case $digest in [0-9]*-"$name"-next-*) continue ;; esac
  signature=\${digest%.digest}.sig
  if [ -f "$signature" ] && right "$digest" "$signature"; then continue; fi
  openssl pkeyutl -sign -pkeyopt digest:sha256 -inkey "$key" "$@" -in "$digest" -out "$signature.new"
  if ! right "$digest" "$signature.new"; then
    rm -f "$signature.new"
    echo "sign.sh: $key is not the key of $name.crt" >&2
    exit 1
  fi
  mv "$signature.new" "$signature"
  echo "signed  $signature"
  signed=1
done
if [ "$signed" = 0 ]; then echo "everything for $name is signed already"; fi
`

/** What a person reads who is handed the folder. */
export function readmeOf(requests: readonly SigningRequest[]): string {
  const round = Math.max(0, ...requests.map((request) => request.round))
  const names = [...new Set(requests.filter((request) => request.round === round).map(keyName))]
  const rows = requests.filter((request) => request.round === round)
  return `# Digests to sign

Each \`.digest\` file holds the 32 bytes of a SHA-256 digest. Wanted beside it is a \`.sig\` file of the same name: its
RSASSA-PKCS1-v1_5 signature with SHA-256, as raw bytes, by the key of the certificate it is named for. \`requests.json\`
says the same for programs.

With openssl, and a key for each name:

${names.map((name) => `    ${signCommand('.', name)}`).join('\n')}

\`sign.sh\` signs what is not signed yet and checks each signature with the certificate. Or one by one:

${rows.map((request) => `    ${opensslCommand(request)}`).join('\n')}

## Round ${round}

${rows.map((request) => `- \`${digestName(request)}\`\n  ${describe(request)}\n  SHA-256 ${request.digest}`).join('\n')}

Whoever wants to know what is behind a digest before signing it can ask for it again: from the same certificates, and for
images the same recipe and lock, the same version of Bisque makes the same digests on any machine.
`
}
