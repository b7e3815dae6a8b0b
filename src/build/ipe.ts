/** The IPE policy of an image: what it adds to the initrd, to the command line, to the UKI and to the system. */
import { makeInitrd } from '../image/initrd.ts'
import { ipeInitrd } from '../image/ipe/initrd.ts'
import { type IpePolicies, ipePolicies } from '../image/ipe/policy.ts'
import { ipeSystem, ROOT_FLAGS } from '../image/ipe/system.ts'
import type { ImageRecipe } from '../recipe/recipe.ts'
import type { Settings } from '../recipe/schema.ts'
import { signIpePolicy } from '../signing/ipe.ts'
import type { Tree } from '../tree/tree.ts'
import type { NamedInitrd } from './boot.ts'
import type { Signing } from './keys.ts'

const policiesOf = ({ imageId, output, ipePolicy }: Settings): IpePolicies =>
  ipePolicies({ imageId: imageId ?? output, ipePolicy })

/** An initrd with the signed policies and what insists on them; none where the image has no policy. */
export async function ipeInitrds({ settings }: ImageRecipe, signing: Signing, epoch: number): Promise<NamedInitrd[]> {
  if (settings.ipe === 'off') return []
  const { policy, booted } = policiesOf(settings)
  const sign = async (one: { name: string; text: string }) => ({
    ...one,
    signed: await signIpePolicy(one.text, signing.signers.verity),
  })
  const tree = ipeInitrd({ mode: settings.ipe, policy: await sign(policy), booted: await sign(booted), epoch })
  return [{ name: 'ipe.initrd', content: { bytes: await makeInitrd(tree, { compression: 'none' }) } }]
}

/** Words of the command line. Where /usr is a file system of its own, nothing on the root is executed. */
export function ipeWords({ ipe, hermeticUsr, kernelCommandLine }: Settings): string[] {
  if (ipe === 'off') return []
  const plain = !hermeticUsr || ipe !== 'enforce' || kernelCommandLine.some((word) => /^(rootflags|mount\.usrflags)=/.test(word))
  return [`ipe.enforce=${ipe === 'enforce' ? 1 : 0}`, ...(plain ? [] : ROOT_FLAGS)]
}

/** The choice in the boot menu that enforces, where the recipe leaves it to that and has none of its own. */
export function ipeProfiles({ ipe, unifiedKernelImageProfiles }: Settings) {
  const own = unifiedKernelImageProfiles.some(({ cmdline }) => cmdline.includes(ENFORCE))
  if (ipe !== 'profile' || own) return []
  return [{ profile: { ID: 'ipe', TITLE: 'Boot with IPE enforcement' }, cmdline: [ENFORCE], signExpectedPcr: true }]
}
const ENFORCE = 'ipe.enforce=1'

/** What the booted system has of it. */
export function ipeFiles(settings: Settings, epoch: number): Tree {
  const { ipe } = settings
  return ipe === 'off' || ipe === 'permissive' ? new Map() : ipeSystem({ mode: ipe, booted: policiesOf(settings).booted, epoch })
}

/** What a system has that will not work where CAP_MAC_ADMIN is gone. */
export function ipeNotes({ ipe }: Settings, system: Tree): string[] {
  if (ipe !== 'enforce' && ipe !== 'profile') return []
  return ['usr/sbin/apparmor_parser', 'usr/bin/apparmor_parser']
    .filter((path) => system.has(path))
    .slice(0, 1)
    .map(
      (path) =>
        `/${path} cannot load profiles: nobody may change what the kernel enforces (ipe: '${ipe}'); see docs/integrity.md`,
    )
}
