import SimulationKit
import Virtio

/// A second opinion on chains, written for clarity and byte by byte: what `SplitVirtqueue.walk` is compared with.
struct ChainReference {
    /// The ring's descriptor table.
    var table: [Descriptor]
    /// Indirect tables by the address that refers to them; what is not here is not in memory.
    var tables: [UInt64: [Descriptor]] = [:]

    struct Opinion: Equatable {
        var verdict: VerdictClass
        /// Guest addresses of all bytes, when the chain is sound.
        var readable: [UInt64] = []
        var writable: [UInt64] = []
        /// Where the status goes, when the chain has an end.
        var status: UInt64?
    }

    /// A chain's descriptors in order, tables resolved; nil when it has no proper end.
    func descriptors(from head: Int = 0) -> [Descriptor]? {
        guard let direct = follow(table, from: head) else { return nil }
        guard let reference = direct.last, reference.isIndirect else { return direct }
        guard !reference.hasNext, reference.length > 0, reference.length % 16 == 0, reference.length <= 16384,
            let indirect = tables[reference.address], indirect.count == reference.length / 16,
            let rest = follow(indirect, from: 0), !rest.contains(where: \.isIndirect)
        else { return nil }
        return direct.dropLast() + rest
    }

    /// The descriptors from `head` to the first that is the last or indirect; nil for a loop or a bad index.
    private func follow(_ table: [Descriptor], from head: Int) -> [Descriptor]? {
        var visited: Set<Int> = []
        var chain: [Descriptor] = []
        var index = head
        while true {
            guard table.indices.contains(index), visited.insert(index).inserted else { return nil }
            chain.append(table[index])
            if !table[index].hasNext || table[index].isIndirect { return chain }
            index = Int(table[index].next)
        }
    }

    /// The guest addresses of a buffer's bytes; nil when some of them are in no region.
    private func bytes(_ descriptor: Descriptor) -> [UInt64]? {
        if descriptor.length == 0 { return [] }
        let (last, overflow) = descriptor.address.addingReportingOverflow(UInt64(descriptor.length - 1))
        // No alphabet here has a good buffer of more than a few bytes: a long one is known to be bad without a list of
        // them.
        guard !overflow, descriptor.length < 10000, (descriptor.address...last).allSatisfy({ World.holds($0) }) else {
            return nil
        }
        return Array(descriptor.address...last)
    }

    func opinion() -> Opinion {
        guard let chain = descriptors() else { return Opinion(verdict: .endless) }
        let filled = chain.filter { $0.length > 0 }
        let lastWritable = filled.last(where: \.isWritable)
        let status = lastWritable.flatMap { bytes($0)?.last }
        // The order of descriptors is at fault whatever their length; but one without bytes does not begin a part.
        let firstWritable = chain.firstIndex { $0.isWritable && $0.length > 0 } ?? chain.count
        let ordered = chain[firstWritable...].allSatisfy(\.isWritable)
        guard ordered, filled.allSatisfy({ bytes($0) != nil }) else {
            return Opinion(verdict: .faulty, status: status)
        }
        func all(_ writable: Bool) -> [UInt64] {
            filled.filter { $0.isWritable == writable }.flatMap { bytes($0) ?? [] }
        }
        return Opinion(verdict: .sound, readable: all(false), writable: all(true), status: status)
    }
}
