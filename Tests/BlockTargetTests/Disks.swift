import BlockTarget
import Platform
import SimulationKit
import Telemetry
import Uring

/// The disks that tests use.
enum Disks {
    /// 64 sectors more than a mebibyte.
    static let sectors: UInt64 = 2048 + 64
    static let bytes = Int(sectors) * 512

    static func description(isReadOnly: Bool = false, serial: String = "a serial number") -> DiskDescription {
        DiskDescription(
            sectors: sectors, isReadOnly: isReadOnly, serial: serial, supportsDiscard: true, supportsWriteZeroes: true)
    }

    /// A disk in memory.
    static func memory(
        _ description: DiskDescription = description(), queueSize: Int = 128, features: UInt64? = nil,
        call: Int32 = -1
    ) throws -> Bench<MemoryBackend> {
        let disk = try MemoryDisk(bytes: Int(description.sectors) * 512)
        return try Bench(MemoryBackend(disk), description, queueSize: queueSize, features: features, call: call)
    }

    /// A disk on a simulated storage.
    static func simulated(
        _ storage: SimulatedStorage, _ description: DiskDescription = description(), queueSize: Int = 128,
        writesThrough: Bool = false, isBlockDevice: Bool = false, statistics: DeviceStatistics? = nil
    ) throws -> Bench<FileBackend<SimulatedEngine>> {
        let access = ImageAccess(
            file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile,
            offsetAlignment: storage.directAlignment.offset, memoryAlignment: storage.directAlignment.memory,
            isBlockDevice: isBlockDevice, isReadOnly: description.isReadOnly)
        let backend = try FileBackend(
            access, engine: SimulatedEngine(storage), meter: FaultMeter(statistics, loop: 0))
        return try Bench(
            backend, description, queueSize: queueSize, writesThrough: writesThrough, statistics: statistics)
    }

    /// A storage whose every byte tells where it is.
    static func storage(seed: UInt64 = 1) -> SimulatedStorage {
        SimulatedStorage(bytes: pattern(bytes), seed: seed)
    }

    /// A disk on a real file, through a real ring.
    static func file(_ path: String, cache: CacheMode) throws -> Bench<FileBackend<Ring>> {
        let image = try DiskImage(path: path, readOnly: false, cache: cache)
        var description = description()
        description.sectors = image.bytes / 512
        let backend = try FileBackend(image, engine: Ring(entries: 64, completions: 256))
        return try Bench(backend, description)
    }
}
