/** f2fs by mkfs.f2fs: empty, as nothing fills one that is not mounted with owners and attributes. */
import type { FileSystemRequest } from '../repart/file-system.ts'
import { checkPlain, cutLabel, makeSparse, type Place, refuse, runTool } from './tool.ts'

export async function makeF2fs(request: FileSystemRequest, place: Place): Promise<void> {
  checkPlain(request)
  const { tree, sizeBytes, uuid, label, epoch } = request
  if (tree.size > 1) throw refuse(request, 'it cannot be filled without being mounted: let it begin empty')
  if (sizeBytes === undefined) throw refuse(request, 'it takes a size')
  await makeSparse(place.image, sizeBytes)
  await runTool(place, ['mkfs.f2fs', '-q', '-f', '-r', '-T', `${epoch}`, '-l', cutLabel(label, 512), '-U', uuid, place.image])
}
