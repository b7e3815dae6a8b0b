/** The crypt(3) form of root's password. Its salt follows from the recipe's seed: the same recipe gives the same image. */
import { hmac } from '../../base/guid.ts'
import { crypt } from '../../formats/sha512-crypt.ts'

/** The hash; as it is where it is one already or empty, which lets root log in without. */
export function rootPasswordHash(password: { value: string; hashed: boolean }, seed: string): string {
  if (password.hashed || password.value === '') return password.value
  return crypt(password.value, hmac(seed, 'root-password').toString('hex').slice(0, 16))
}
