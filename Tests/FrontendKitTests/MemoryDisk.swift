import FrontendKit
import Platform
import Synchronization

/// A disk in memory, served by a thread of this process: right, or wrong in one way that a test chooses.
final class MemoryDisk: Sendable {
    enum Fault: Sendable {
        case none
        /// Every so many requests, one write is answered and not done.
        case losesWrites(every: Int)
        /// After so many requests, a write that was done earlier is done once more.
        case repeatsWrite(after: Int)
        /// Reads fill all but the last sector.
        case readsShort
        /// Completions are not announced.
        case neverInterrupts
        /// After so many requests, none is answered.
        case fallsSilent(after: Int)
        /// Reads write a byte too many.
        case writesTooMuch
    }

    private let stop = Atomic<Bool>(false)

    /// Serves until `body` returns.
    static func serving(
        _ endpoint: QueueEndpoint, sectorCount: Int, fault: Fault, _ body: () throws -> Void
    ) throws {
        let disk = MemoryDisk()
        let thread = try JoinableThread(name: "memory-disk") { disk.serve(endpoint, sectorCount, fault) }
        let result = Result { try body() }
        disk.stop.store(true, ordering: .relaxed)
        thread.join()
        try result.get()
    }

    private func serve(_ endpoint: QueueEndpoint, _ sectorCount: Int, _ fault: Fault) {
        var peer = LoopbackPeer(endpoint)
        var server = RequestServer(memory: endpoint.memory, sectorCount: sectorCount, fault: fault)
        while !stop.load(ordering: .relaxed) {
            guard let head = peer.nextHead() else {
                // Polling: a kick may come or not.
                pause(milliseconds: 0)
                continue
            }
            guard let length = server.serve(peer.chain(at: head)) else { continue }
            peer.complete(id: UInt32(head), length: length)
            if case .neverInterrupts = fault { continue }
            endpoint.call.signal()
        }
    }
}

/// What the disk does with one request.
private struct RequestServer {
    let memory: GuestMemory
    let fault: MemoryDisk.Fault
    private var bytes: [UInt8]
    private var served = 0
    /// The first write, to be repeated.
    private var firstWrite: (offset: Int, data: [UInt8])?

    init(memory: GuestMemory, sectorCount: Int, fault: MemoryDisk.Fault) {
        self.memory = memory
        self.fault = fault
        bytes = [UInt8](repeating: 0, count: sectorCount * 512)
    }

    /// Returns how much was written into the chain; nil: it is not answered.
    mutating func serve(_ chain: [Descriptor]) -> UInt32? {
        served += 1
        if case .fallsSilent(let after) = fault, served > after { return nil }
        let header = memory.read(16, at: chain[0].address)
        let offset = header[8..<16].reversed().reduce(0) { $0 << 8 | Int($1) } * 512
        let data = chain.dropFirst().dropLast()
        if header[0] == 0 { read(data, at: offset) } else if header[0] == 1 { write(data, at: offset) }
        memory.write([0], at: chain[chain.count - 1].address)
        return UInt32(1 + data.filter { $0.flags.contains(.deviceWrites) }.reduce(0) { $0 + Int($1.length) })
    }

    private func read(_ buffers: ArraySlice<Descriptor>, at offset: Int) {
        var length = buffers.reduce(0) { $0 + Int($1.length) }
        if case .readsShort = fault { length -= 512 }
        var done = 0
        for buffer in buffers where done < length {
            let count = min(Int(buffer.length), length - done)
            memory.write(Array(bytes[offset + done..<offset + done + count]), at: buffer.address)
            done += count
        }
        if case .writesTooMuch = fault, let last = buffers.last {
            memory.write([1], at: last.address + UInt64(last.length))
        }
    }

    private mutating func write(_ buffers: ArraySlice<Descriptor>, at offset: Int) {
        if case .losesWrites(let every) = fault, served % every == 0 { return }
        let data = buffers.flatMap { memory.read(Int($0.length), at: $0.address) }
        bytes.replaceSubrange(offset..<offset + data.count, with: data)
        guard case .repeatsWrite(let after) = fault else { return }
        if firstWrite == nil { firstWrite = (offset, data) }
        if served > after, let first = firstWrite {
            bytes.replaceSubrange(first.offset..<first.offset + first.data.count, with: first.data)
        }
    }
}
