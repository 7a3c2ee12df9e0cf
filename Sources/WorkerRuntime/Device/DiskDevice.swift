internal import BlockTarget
internal import CWire
internal import Logging
internal import Platform
internal import VhostUser

/// What a disk has besides what every device has: a capacity, the right to its image, a write cache.
final class DiskDevice: ServedDevice {
    var disk: DiskDescription
    /// The storage, where its size can change.
    let image: DiskImage?
    /// The right to serve the image, held while a queue runs; nil for a disk without one.
    private let tenure: ImageTenure?
    private var writeback = true
    let allowsShrinking: Bool
    /// A size that was refused, so that it is refused once.
    var refusedBytes: UInt64?

    /// - Parameter image: the storage, where its size can change.
    init(
        _ disk: DiskDescription, image: DiskImage? = nil, tenure: ImageTenure? = nil, allowsShrinking: Bool = false,
        _ parts: Parts
    ) {
        self.disk = disk
        self.image = image
        self.tenure = tenure
        self.allowsShrinking = allowsShrinking
        super.init(parts)
    }

    override var offeredFeatures: UInt64 { disk.features }
    override var configuration: [UInt8] { disk.configuration(writeback: writeback) }

    /// Whether it has turned the cache off, or cannot flush it (VIRTIO 1.2, 5.2.6.2).
    override func writesThrough(_ features: UInt64) -> Bool {
        if features & (1 << UInt64(WIRE_VIRTIO_BLK_F_CONFIG_WCE)) != 0 { return !writeback }
        return features & (1 << UInt64(WIRE_VIRTIO_BLK_F_FLUSH)) == 0
    }

    override func writeConfiguration(_ bytes: [UInt8], at offset: Int) throws(DeviceRefusal) {
        guard offset == DiskDescription.writebackOffset, bytes.count == 1 else {
            throw DeviceRefusal(
                "only the write cache byte of the configuration can be written, not \(bytes.count) bytes at \(offset)")
        }
        writeback = bytes[0] != 0
        for (index, queue) in queues.enumerated() {
            guard let setup = queue.setup else { continue }
            let value = writesThrough(setup.features)
            _ = loop(of: index).command(.change(queue: index, .writesThrough(value)))
        }
        // A driver that has turned the cache off flushes no more: what was answered before must not stay in it.
        guard !writeback, let image else { return }
        do throws(Errno) {
            try image.synchronize()
        } catch {
            throw DeviceRefusal("the write cache cannot be emptied: \(error)")
        }
    }

    override func takeRight() throws(DeviceRefusal) {
        do throws(SystemError) {
            try tenure?.take()
        } catch {
            throw DeviceRefusal("\(error)")
        }
    }

    override func giveUpRight() { tenure?.giveUp() }
    override func keepRightForGood() { tenure?.keepForGood() }

    override func lookAtStorage(announcing: Bool, isTakeOver: Bool) {
        lookAtSize(announcing: announcing, isTakeOver: isTakeOver)
    }

    override func resize(to bytes: UInt64, isShrinking: Bool) -> String? { takeSize(bytes, isShrinking: isShrinking) }

    override func forgetDriver() { writeback = true }

    override func watch() throws(Errno) -> FileWatch? { try image?.watch() }

    override var metadata: Logger.Metadata {
        [
            "bytes": "\(disk.sectors * 512)", "block": "\(disk.logicalBlockSize)", "queues": "\(disk.queueCount)",
            "threads": "\(loops.count)", "read-only": "\(disk.isReadOnly)",
        ]
    }
}
