/**
 * The IPE policy of an image: nothing is executed, loaded into the kernel or booted by kexec but what came with the initrd
 * or lies on a dm-verity volume whose signature the kernel verified.
 *
 * There are two of it. The first is for the initrd, whose files `boot_verified` stands for. That property stays with the
 * kernel's first file system for as long as the machine runs, and root can reach it again and write to it; so once the
 * system is up, a second policy without it takes the first one's place.
 */
import { formatIpePolicy, type IpePolicy, type IpeRule, parseIpePolicy, parseIpeVersion } from '../../formats/ipe-policy.ts'

/** What a recipe says of its policy: rules for the one that is made, or a whole text. */
export interface IpeAdjustments {
  name?: string
  version?: string
  rules: readonly IpeRule[]
  text?: string
  source?: string
}

export interface IpePolicies {
  /** The policy that PID 1 of the initrd loads. */
  policy: { name: string; text: string }
  /** What replaces it once the system is up. */
  booted: { name: string; text: string }
}

/** What the kernel does with files; of each only what the image brought. */
const GUARDED = ['EXECUTE', 'KMODULE', 'FIRMWARE', 'KEXEC_IMAGE', 'KEXEC_INITRAMFS', 'POLICY', 'X509_CERT'] as const

/** The policies for an image, as its settings want them. */
export function ipePolicies(settings: { imageId: string; ipePolicy: IpeAdjustments | undefined }): IpePolicies {
  const { ipePolicy } = settings
  const policy =
    ipePolicy?.text === undefined ? generated(settings.imageId, ipePolicy) : parseIpePolicy(ipePolicy.text, ipePolicy.source)
  const booted = bootedPolicy(policy)
  return {
    policy: { name: policy.name, text: ipePolicy?.text ?? formatIpePolicy(policy) },
    booted: { name: booted.name, text: formatIpePolicy(booted) },
  }
}

function generated(imageId: string, { name = imageId, version = '1.0.0', rules = [] }: Partial<IpeAdjustments> = {}): IpePolicy {
  const own = GUARDED.flatMap((operation): IpeRule[] => [
    { operation, properties: [{ name: 'boot_verified', value: true }], action: 'ALLOW' },
    { operation, properties: [{ name: 'dmverity_signature', value: true }], action: 'ALLOW' },
  ])
  return { name, version: parseIpeVersion(version), defaultAction: 'DENY', defaults: {}, rules: [...rules, ...own] }
}

/** The same without what it allows the initrd. */
export function bootedPolicy(policy: IpePolicy): IpePolicy {
  const ofInitrd = (rule: IpeRule) =>
    rule.action === 'ALLOW' && rule.properties.some(({ name, value }) => name === 'boot_verified' && value === true)
  return { ...policy, name: `${policy.name}-booted`, rules: policy.rules.filter((rule) => !ofInitrd(rule)) }
}
