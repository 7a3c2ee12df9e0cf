internal import BlockTarget
internal import Logging
internal import Platform

// MARK: - Capacity

extension DiskDevice {
    /// Looks at the storage's size, and takes it up if it has grown.
    ///
    /// - Parameter announcing: tell the front-end to read the configuration in any case: the size may have changed
    ///   while no worker ran.
    /// - Parameter isTakeOver: take up whatever it has: what this worker knows may be older than what the one before
    ///   has told the front-end.
    func lookAtSize(announcing: Bool, isTakeOver: Bool) {
        if announcing { mustAnnounce = true }
        guard let image else { return }
        let bytes: UInt64
        do throws(Errno) {
            bytes = try image.currentBytes() / UInt64(disk.logicalBlockSize) * UInt64(disk.logicalBlockSize)
        } catch {
            log.error("the image's size cannot be read: \(error)")
            return
        }
        let sectors = bytes / 512
        guard sectors != disk.sectors else {
            refusedBytes = nil
            return
        }
        if sectors < disk.sectors, !(allowsShrinking || isTakeOver) || sectors == 0 {
            if refusedBytes != bytes { refuseToShrink(to: bytes) }
            return
        }
        setCapacity(sectors)
    }

    /// Takes up the size that a supervisor says, and announces it in any case: the worker before may have died over it.
    ///
    /// - Returns: why the disk keeps its size, as a sentence; nil when it has the new one.
    func takeSize(_ bytes: UInt64, isShrinking: Bool) -> String? {
        let block = UInt64(disk.logicalBlockSize)
        let sectors = bytes / block * block / 512
        guard let image, let present = try? image.currentBytes() else { return "the image's size cannot be read" }
        guard sectors > 0, bytes <= present else { return "the image has \(present) bytes, fewer than \(bytes)" }
        guard sectors >= disk.sectors || isShrinking else {
            return
                "the disk has \(disk.sectors * 512) bytes: what lies behind \(bytes) would be lost to the guest. Make"
                + " its file system smaller first, then give --shrink"
        }
        if sectors != disk.sectors { setCapacity(sectors) }
        mustAnnounce = true
        return disk.sectors == sectors ? nil : "a loop does not take up the new size"
    }

    private func refuseToShrink(to bytes: UInt64) {
        refusedBytes = bytes
        log.error(
            """
            the image is now smaller than the disk: the disk keeps its size, and reads behind the image's end fail. \
            Make it as large as before, or start with --allow-shrink if the guest knows
            """,
            metadata: ["image-bytes": "\(bytes)", "disk-bytes": "\(disk.sectors * 512)"])
    }

    /// All loops accept requests up to the new end before the front-end can read it.
    private func setCapacity(_ sectors: UInt64) {
        let old = disk.sectors
        for loop in loops {
            guard case .done = loop.command(.change(queue: nil, .capacity(sectors))) else {
                log.error("a loop does not take up the new capacity: ask again with SIGHUP")
                return
            }
        }
        disk.sectors = sectors
        refusedBytes = nil
        mustAnnounce = true
        log.notice("the disk has another size", metadata: ["bytes": "\(sectors * 512)", "before": "\(old * 512)"])
    }
}
