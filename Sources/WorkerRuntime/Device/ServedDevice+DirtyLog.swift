internal import BlockTarget
internal import CWire
internal import Platform
internal import VhostUser
internal import Virtio

// MARK: - Marks of what is written to guest memory

extension ServedDevice {
    func setDirtyLog(_ description: LogDescription, fd: consuming OwnedFD) throws(DeviceRefusal) {
        let old = dirtyLog
        do throws(Errno) {
            dirtyLog = try DirtyLog(fd: fd, offset: description.fileOffset, count: description.size)
        } catch {
            throw DeviceRefusal(
                error == .invalidArgument
                    ? "a dirty log of \(description.size) bytes is larger than its file"
                    : "cannot map the dirty log: \(error)")
        }
        do throws(DeviceRefusal) {
            try passMarks()
        } catch {
            dirtyLog = old
            throw error
        }
    }

    func setLogEvent(_ fd: consuming OwnedFD) throws(DeviceRefusal) {
        do throws(Errno) {
            logEvent = SharedFD(try EventFD(receiving: fd))
        } catch {
            throw DeviceRefusal("the dirty log's descriptor cannot be used as an eventfd: \(error)")
        }
        try passMarks()
    }

    func setLogging(_ logging: QueueLogging, queue: Int) throws(DeviceRefusal) {
        queues[queue].logging = logging
        try passMarks(queue)
    }

    private func passMarks() throws(DeviceRefusal) {
        for queue in queues.indices where queues[queue].logging.isOn { try passMarks(queue) }
    }

    private func passMarks(_ queue: Int) throws(DeviceRefusal) {
        guard let setup = queues[queue].setup else { return }
        guard case .done = loop(of: queue).command(.setMarks(queue: queue, marks(queue, setup))) else {
            throw DeviceRefusal("queue \(queue) does not take up the dirty log")
        }
    }

    /// Where a queue is to mark what it writes; nil: nowhere.
    func marks(_ queue: Int, _ setup: QueueSetup) -> QueueMarks? {
        let logging = queues[queue].logging
        guard logging.isOn, let dirtyLog else { return nil }
        var ring: [WriteMarks.GuestRange] = []
        if let address = logging.usedRing {
            if setup.features & (1 << UInt64(WIRE_VIRTIO_F_RING_PACKED)) != 0 {
                // The device writes into the descriptor ring, and says what it wants to be kicked for.
                for (part, count) in [(setup.descriptorTable, 16 * setup.size), (setup.usedRing, 4)] {
                    guard let guest = memory.guestAddress(ofFrontend: part) else { continue }
                    ring.append(WriteMarks.GuestRange(address: guest, count: UInt64(count)))
                }
            } else {
                let count = SplitVirtqueue.usedRingBytes(size: setup.size, features: setup.features)
                ring.append(WriteMarks.GuestRange(address: address, count: UInt64(count)))
            }
        }
        return QueueMarks(log: dirtyLog, ring: ring, event: logEvent)
    }
}
