internal import BlockTarget
internal import Logging
internal import Platform
internal import Telemetry
internal import Uring

extension WorkerConfiguration {
    /// Opens the storage, starts the loops on it, and puts a device before them.
    ///
    /// - Parameters:
    ///   - signals: a descriptor whose input ends a wait for the storage.
    ///   - statistics: where the loops count.
    ///   - takeOver: a device that is in custody, and that another worker may have: the loops stand by. Nil: this
    ///     worker is on its own.
    ///   - directory: what is shared, of a worker on its own.
    /// - Throws: what failed, and what to do.
    func makeDevice(
        log: Logger, signals: Int32, statistics: DeviceStatistics, takeOver: TakeOver? = nil,
        directory: GivenDirectory? = nil
    ) throws(SystemError) -> ServedDevice {
        if case .directory(let path, let share) = storage {
            return try makeShare(
                share, path: path, directory: directory, log: log, statistics: statistics, takeOver: takeOver)
        }
        return try makeDisk(log: log, signals: signals, statistics: statistics, takeOver: takeOver)
    }

    private func makeDisk(
        log: Logger, signals: Int32, statistics: DeviceStatistics, takeOver: TakeOver?
    ) throws(SystemError) -> ServedDevice {
        var disk = DiskDescription(
            sectors: 0, isReadOnly: isReadOnly, serial: serial, queueCount: queueCount,
            maximumQueueSize: maximumQueueSize, supportsDiscard: true, supportsWriteZeroes: true)
        disk.offersPackedRings = offersPackedRings
        var loops: [LoopThread] = []
        var tenure: ImageTenure?
        var opened: DiskImage?
        switch storage {
        case .image(let path, let cache):
            let image = if let given = takeOver?.image { given.image } else { try openImage(path, cache, log) }
            opened = image
            if takeOver == nil {
                tenure = try settle(image, path, predecessorWait(path, log, signals), log)
            } else if !isReadOnly {
                // Whoever keeps the device keeps others out, and has waited for earlier workers.
                try image.lock(path)
            }
            disk.sectors = ((try? image.currentBytes()) ?? image.bytes) / 512
            disk.supportsDiscard = takeOver?.image?.supportsDiscard ?? image.probeDiscard()
            disk.logicalBlockSize = try logicalBlockSize(for: image, path)
            disk.physicalBlockSize = max(disk.logicalBlockSize, image.physicalBlockSize)
            for index in 0..<threadCount {
                let backend = try fileBackend(image, loop: index, FaultMeter(statistics, loop: index), takeOver, log)
                loops.append(try startLoop(index, DiskService(backend, disk), takeOver != nil, log))
            }
        case .memory(let bytes):
            disk.takeCapacity(bytes, logicalBlockSize)
            let contents = try MemoryDisk(bytes: Int(bytes))
            for index in 0..<threadCount {
                let service = DiskService(MemoryBackend(contents), disk)
                loops.append(try startLoop(index, service, takeOver != nil, log))
            }
        case .null(let bytes):
            disk.takeCapacity(bytes, logicalBlockSize)
            for index in 0..<threadCount {
                loops.append(try startLoop(index, DiskService(NullBackend(), disk), takeOver != nil, log))
            }
        case .directory: preconditionFailure("a directory is no disk")
        }
        return DiskDevice(
            disk, image: opened, tenure: tenure, allowsShrinking: allowsShrinking,
            try deviceParts(queueCount: queueCount, loops, statistics, takeOver, log))
    }

    /// What every device is made of.
    func deviceParts(
        queueCount: Int, _ loops: [LoopThread], _ statistics: DeviceStatistics, _ takeOver: TakeOver?, _ log: Logger
    ) throws(SystemError) -> ServedDevice.Parts {
        ServedDevice.Parts(
            queueCount: queueCount, maximumQueueSize: maximumQueueSize, loops: loops,
            drainMilliseconds: Self.drainMilliseconds, pinsMemory: pinsGuestMemory, parksRequests: parksRequests,
            standsBy: takeOver != nil, privateInflight: try takeOver?.privateInflight(self), statistics: statistics,
            log: log)
    }

    private func openImage(_ path: String, _ cache: CacheMode, _ log: Logger) throws(SystemError) -> DiskImage {
        let image = try DiskImage(
            path: path, readOnly: isReadOnly, cache: cache, allowsLeaseLocks: allowsLeaseLocks)
        if image.ignoredBytes > 0 {
            log.warning("the last \(image.ignoredBytes) bytes of \(path) are no whole sector and are not served")
        }
        return image
    }

    /// Waits for what a dead worker has left in the storage. That another one serves the image is no reason not to
    /// start: its guest may be about to move here.
    private func settle(
        _ image: DiskImage, _ path: String, _ wait: PredecessorWait, _ log: Logger
    ) throws(SystemError) -> ImageTenure {
        let tenure = ImageTenure(image, path: path, wait: wait)
        do throws(SystemError) {
            try tenure.settle()
        } catch {
            guard error.errno == .busy else { throw error }
            log.warning("\(error); until then no queue starts here")
        }
        return tenure
    }

    private func predecessorWait(_ path: String, _ log: Logger, _ signals: Int32) -> PredecessorWait {
        PredecessorWait(
            limitMilliseconds: predecessorSeconds * 1000,
            report: { stage in
                switch stage {
                case .begins(let obstacle): log.notice("waiting to serve \(path): \(obstacle)")
                case .goesOn(let obstacle, let milliseconds):
                    log.warning("still waiting after \(milliseconds / 1000) s to serve \(path): \(obstacle)")
                case .ends(let milliseconds): log.notice("waited \(milliseconds) ms; \(path) is free now")
                }
            },
            nap: { milliseconds in !waitForInput(signals, milliseconds: milliseconds) })
    }

    private func fileBackend(
        _ image: DiskImage, loop: Int, _ meter: consuming FaultMeter, _ takeOver: TakeOver?, _ log: Logger
    ) throws(SystemError) -> FileBackend<Ring> {
        do {
            guard let takeOver else {
                var engine = try Ring(entries: 256, completions: ringCompletions)
                engine.keepOpen(image.access.file, image.access.unalignedFile)
                return try FileBackend(image, engine: engine, meter: meter)
            }
            let bounceMemory: OwnedFD? = try takeOver.bounceMemory(loop: loop)
            let flusher = isReadOnly ? nil : try Flusher(image, capacity: Int(ringCompletions), loop: loop)
            return try FileBackend(
                image, engine: try takeOver.ring(loop), bounceMemory: bounceMemory, flusher: flusher, meter: meter)
        } catch let error as SystemError {
            throw error
        } catch {
            throw SystemError(cannot: "set aside", "the bounce buffers", error as? Errno)
        }
    }

    func startLoop<Service: LoopService & ~Copyable>(
        _ index: Int, _ service: consuming Service, _ standsBy: Bool, _ log: Logger
    ) throws(SystemError) -> LoopThread {
        try LoopThread(
            index: index, service: service, pollMicroseconds: pollMicroseconds,
            cpu: cpus.isEmpty ? nil : cpus[index % cpus.count], standsBy: standsBy, log: log)
    }

    /// Each request has at most one operation in flight: with this many the completion queue cannot overflow.
    var ringCompletions: UInt32 {
        let queuesOfLoop = (queueCount + threadCount - 1) / threadCount
        return UInt32(min(65536, max(512, queuesOfLoop * maximumQueueSize)))
    }

    private func logicalBlockSize(for image: DiskImage, _ path: String) throws(SystemError) -> Int {
        let block = logicalBlockSize ?? (image.offsetAlignment > 512 ? 4096 : 512)
        // Smaller requests would go through the page cache while others go past it. When two of them meet in one page
        // at the same time, the kernel keeps neither coherent ("Page cache invalidation failure on direct I/O").
        if block < image.offsetAlignment {
            throw SystemError(
                cannot: "serve", path, nil,
                advice:
                    "Direct access takes blocks of \(image.offsetAlignment) bytes, more than the disk's of \(block):"
                    + " use --cache=buffered\(image.offsetAlignment == 4096 ? " or --block-size=4096" : "")")
        }
        guard let asked = logicalBlockSize else { return block }
        if image.bytes % UInt64(asked) != 0 {
            throw SystemError(
                cannot: "serve", path, nil,
                advice: "Its size of \(image.bytes) bytes is no multiple of the block size \(asked)")
        }
        return asked
    }
}

extension DiskDescription {
    /// Takes the capacity of a disk that has no image.
    fileprivate mutating func takeCapacity(_ bytes: UInt64, _ logicalBlockSize: Int?) {
        sectors = bytes / 512
        self.logicalBlockSize = logicalBlockSize ?? 512
        physicalBlockSize = max(self.logicalBlockSize, 4096)
    }
}
