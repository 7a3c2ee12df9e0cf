public import Virtio

/// A well-formed message whose meaning is refused. It changed nothing, or what it changed is taken up again by the next
/// message of its kind; the connection can go on if the peer asked for an acknowledgement.
public struct RequestRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// The message that is refused.
    public var kind: RequestKind
    /// Why.
    public var reason: Reason

    public init(_ kind: RequestKind, _ reason: Reason) {
        self.kind = kind
        self.reason = reason
    }

    public enum Reason: Error, Hashable, Sendable {
        /// No feature that this back-end offers has the message.
        case unsupported
        /// The message belongs to a protocol feature that the front-end did not take.
        case featureNotTaken(ProtocolFeatures)
        /// The front-end takes virtio features that were not offered.
        case featuresNotOffered(UInt64)
        /// The front-end takes protocol features that were not offered.
        case protocolFeaturesNotOffered(ProtocolFeatures)
        /// There is no vring of this index.
        case noSuchVring(UInt32, count: Int)
        /// A vring of 0 or too many descriptors.
        case wrongVringSize(UInt32, maximum: Int)
        /// A log of requests in flight for no queue, for too many, or for none that could be.
        case wrongInflight(queues: Int, size: Int, maximum: Int)
        /// An index that no split ring has.
        case wrongVringBase(UInt32)
        /// More than a byte of device status.
        case wrongStatus(UInt64)
        /// A dirty log of no bytes, or beyond the end of any file.
        case endlessLog(LogDescription)
        /// A dirty log that has no bit for part of the memory.
        case logTooShort(UInt64, needed: UInt64)
        /// Memory regions that take more address space together than there is room for.
        case tooMuchMemory(maximum: UInt64)
        /// Neither 0 nor 1.
        case wrongVringEnable(UInt32)
        /// A part of a vring at an address that is not a multiple of its alignment.
        case misalignedVring(UInt64, alignment: UInt64)
        /// A region without bytes.
        case emptyRegion(MemoryRegion)
        /// A region that goes beyond the end of an address space or of any file.
        case endlessRegion(MemoryRegion)
        /// A region whose file offset and address differ in what they are multiples of.
        case misalignedRegion(MemoryRegion)
        /// Two regions share addresses.
        case overlappingRegions(MemoryRegion, MemoryRegion)
        /// More regions than the device has slots for.
        case tooManyRegions(Int, maximum: Int)
        /// No region has these addresses and this size.
        case noSuchRegion(MemoryRegion)
        /// A write of no bytes or beyond the largest configuration space.
        case outsideConfiguration(UInt32, count: Int)
        /// The device refused, and says why.
        case device(String)
    }

    /// One sentence without a full stop: which message, and why it is refused.
    public var description: String {
        "\(kind) refused: \(reason)"
    }
}

extension RequestRefusal.Reason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unsupported:
            "this back-end offers no feature that has it"
        case .featureNotTaken(let feature):
            "the front-end did not take the protocol feature \(feature)"
        case .featuresNotOffered(let features):
            "virtio features \(hexadecimal(features)) were not offered"
        case .protocolFeaturesNotOffered(let features):
            "protocol features \(features) were not offered"
        case .noSuchVring(let index, let count):
            "there is no vring \(index), only \(count)"
        case .wrongVringSize(let size, let maximum):
            "a vring of \(size) descriptors instead of 1 to \(maximum)"
        case .wrongInflight(let queues, let size, let maximum):
            "a log for \(queues) queues of \(size) descriptors instead of 1 to \(maximum) of 1 to 32768"
        case .wrongVringBase(let base):
            "a split ring goes on at 0 to 65535, not at \(base)"
        case .wrongStatus(let word):
            "a device status is one byte, not \(hexadecimal(word))"
        case .endlessLog(let log):
            "a dirty log of \(hexadecimal(log.size)) bytes at \(hexadecimal(log.fileOffset)) of its file"
        case .logTooShort(let size, let needed):
            "a dirty log of \(size) bytes for memory that needs \(needed)"
        case .tooMuchMemory(let maximum):
            "memory regions of more than \(hexadecimal(maximum)) bytes together"
        case .wrongVringEnable(let value):
            "a vring is enabled with 1 or disabled with 0, not with \(value)"
        case .misalignedVring(let address, let alignment):
            "the address \(hexadecimal(address)) is not a multiple of \(alignment)"
        case .emptyRegion(let region):
            "a memory region of 0 bytes at guest address \(hexadecimal(region.guestAddress))"
        case .endlessRegion(let region):
            "\(region.text) goes beyond the end of an address space or file"
        case .misalignedRegion(let region):
            "\(region.text) has its file offset and its front-end address \(MemoryTable.alignment) bytes out of step"
        case .overlappingRegions(let first, let second):
            "\(first.text) overlaps \(second.text)"
        case .tooManyRegions(let count, let maximum):
            "\(count) memory regions, more than \(maximum)"
        case .noSuchRegion(let region):
            "there is no \(region.text)"
        case .outsideConfiguration(let offset, let count):
            "\(count) bytes at \(offset) of a configuration space of at most \(ConfigurationAccess.maximumSize)"
        case .device(let reason):
            reason
        }
    }
}

extension MemoryRegion {
    fileprivate var text: String {
        "memory region \(hexadecimal(guestAddress))+\(hexadecimal(size)) "
            + "(front-end \(hexadecimal(frontendAddress)), file \(hexadecimal(fileOffset)))"
    }
}
