internal import BlockTarget
internal import Platform
internal import SimulationKit
internal import Uring

extension FuzzInput: Choices {
    mutating func below(_ bound: Int) -> Int {
        guard bound > 1 else { return 0 }
        return (bound > 256 ? Int(nextByte()) << 8 | Int(nextByte()) : Int(nextByte())) % bound
    }
}

/// Sends block requests that a fuzzer made, good and bad, through a split or a packed ring to a disk in memory or on a
/// simulated storage that misbehaves, and checks that each is answered once and that nothing is written that was not
/// given away.
///
/// The input begins with the disk: two bytes. Then come steps: a byte that says what happens, and what that needs.
public func fuzzBlockRequest(_ bytes: Span<UInt8>) {
    var input = FuzzInput(bytes)
    let kind = input.nextByte()
    let shape = input.nextByte()
    var disk = DiskDescription(
        sectors: 64, isReadOnly: kind & 2 != 0, serial: "fuzz", supportsDiscard: true, supportsWriteZeroes: true)
    disk.maximumQueueSize = 64
    let setup = TrialSetup(
        disk: disk, queueSize: [1, 2, 3, 4, 8, 16, 33, 64][Int(shape & 7)],
        features: disk.features & ~(kind & 4 != 0 ? 1 << 28 : 0) & ~(kind & 8 != 0 ? 1 << 29 : 0),
        writesThrough: kind & 16 != 0, isPacked: kind & 32 != 0)
    do throws(SystemError) {
        if kind & 1 == 0 {
            try runInMemory(setup, &input)
        } else {
            let alignment = [(1, 1), (512, 1), (512, 512), (4096, 4096)][Int(shape >> 3 & 3)]
            try runOnStorage(setup, alignment: alignment, isBlockDevice: shape & 32 != 0, &input)
        }
    } catch {
        preconditionFailure("\(error)")
    }
}

private struct TrialSetup {
    var disk: DiskDescription
    var queueSize: Int
    var features: UInt64
    var writesThrough: Bool
    var isPacked: Bool

    /// The most steps of one input.
    static let maximumSteps = 64

    func makeTrial<Backend: StorageBackend & ~Copyable>(
        _ backend: consuming Backend
    ) throws(SystemError) -> DiskTrial<Backend> {
        do throws(Errno) {
            return try DiskTrial(
                backend, disk, queueSize: queueSize, features: features, writesThrough: writesThrough,
                isPacked: isPacked)
        } catch {
            throw SystemError(cannot: "make", "a disk to fuzz", error)
        }
    }
}

private func runInMemory(_ setup: TrialSetup, _ input: inout FuzzInput) throws(SystemError) {
    let trial = try setup.makeTrial(MemoryBackend(try MemoryDisk(bytes: Int(setup.disk.sectors) * 512)))
    for _ in 0..<TrialSetup.maximumSteps where !input.isEmpty && trial.hasRoom {
        if input.below(64) == 63 {
            trial.claimNonsense(&input)
            break
        }
        trial.send(&input)
    }
    trial.finish()
}

private func runOnStorage(
    _ setup: TrialSetup, alignment: (Int, Int), isBlockDevice: Bool, _ input: inout FuzzInput
) throws(SystemError) {
    let storage = SimulatedStorage(bytes: [UInt8](repeating: 0x5a, count: Int(setup.disk.sectors) * 512))
    storage.order = .held
    storage.directAlignment = alignment
    storage.rangeAlignment = alignment.0
    let access = ImageAccess(
        file: SimulatedStorage.directFile, unalignedFile: SimulatedStorage.bufferedFile,
        offsetAlignment: alignment.0, memoryAlignment: alignment.1, isBlockDevice: isBlockDevice,
        isReadOnly: setup.disk.isReadOnly)
    let backend: FileBackend<SimulatedEngine>
    do throws(Errno) {
        backend = try FileBackend(access, engine: SimulatedEngine(storage))
    } catch {
        throw SystemError(cannot: "make", "a backend to fuzz", error)
    }
    let trial = try setup.makeTrial(backend)
    for _ in 0..<TrialSetup.maximumSteps where !input.isEmpty {
        step(trial, storage, &input)
    }
    storage.outcome = { _, _ in .complete }
    (storage.order, storage.refusals, storage.takenPerSubmit, storage.queueDepth) = (.random, 0, .max, 128)
    trial.finish()
    precondition(storage.absurdities == 0, "an operation that no backend may ask for")
    if setup.disk.isReadOnly {
        precondition(storage.contents.allSatisfy { $0 == 0x5a }, "a read-only disk has changed")
    }
}

private func step(
    _ trial: DiskTrial<FileBackend<SimulatedEngine>>, _ storage: SimulatedStorage, _ input: inout FuzzInput
) {
    switch input.below(16) {
    case 0...7:
        if trial.hasRoom { trial.send(&input) }
    case 8...11:
        guard !storage.taken.isEmpty else { return }
        let outcome = outcome(&input)
        storage.outcome = { _, _ in outcome }
        storage.carryOut(at: input.below(storage.taken.count))
        trial.disk.turn()
        trial.takeAnswers()
    case 12: storage.refusals = input.below(8)
    case 13: storage.takenPerSubmit = input.below(4)
    case 14: storage.queueDepth = 1 + input.below(8)
    default:
        if input.below(4) == 3 {
            trial.claimNonsense(&input)
        } else {
            // The token of a request in flight, one bit of its queue or of the upper half of its sequence number turned
            // over: it must not complete anything. Head and lower half stay, or it could be that of another request.
            let bit = 16 + input.below(32)
            let token = (storage.taken.first?.token ?? 0) ^ 1 << UInt64(bit < 32 ? bit : bit + 16)
            storage.deliver(token: token, result: 512)
        }
    }
}

private func outcome(_ input: inout FuzzInput) -> SimulatedOutcome {
    switch input.below(8) {
    case 0: .short(UInt64(input.below(4096)))
    case 1: .endOfFile
    case 2: .fails(.wouldBlock)
    case 3: .fails(.notSupported)
    case 4: .fails(.invalidArgument)
    case 5: .fails([.inputOutput, .noSpace, .interrupted][input.below(3)])
    default: .complete
    }
}
