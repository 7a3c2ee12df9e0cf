internal import CWire

/// A structure whose every bit pattern is a value and that has no hidden padding: it is copied from and to the wire
/// whole.
protocol WireStructure {}

extension UInt64: WireStructure {}
extension wire_vhost_user_header: WireStructure {}
extension wire_vhost_vring_state: WireStructure {}
extension wire_vhost_vring_addr: WireStructure {}
extension wire_vhost_user_mem_region: WireStructure {}
extension wire_vhost_user_mem_table_header: WireStructure {}
extension wire_vhost_user_single_mem_region: WireStructure {}
extension wire_vhost_user_config_header: WireStructure {}
extension wire_vhost_user_inflight: WireStructure {}
extension wire_vhost_user_log: WireStructure {}

extension Span<UInt8> {
    /// The structure at a byte offset. Lengths are checked before: to read beyond the end is our own bug and traps.
    func load<Wire: WireStructure & BitwiseCopyable>(_ type: Wire.Type, at offset: Int = 0) -> Wire {
        // Any bytes make a WireStructure, and the bounds are checked by the callee.
        unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: Wire.self)
    }

    /// All bytes from an offset on, copied.
    func array(from offset: Int) -> [UInt8] {
        (offset..<count).map { self[$0] }
    }
}

extension [UInt8] {
    /// The bytes of a structure at the end.
    mutating func append<Wire: WireStructure & BitwiseCopyable>(structure: Wire) {
        // The bytes are copied before the call returns; a WireStructure has no padding that would leak our memory.
        unsafe Swift.withUnsafeBytes(of: structure) { unsafe append(contentsOf: $0) }
    }
}

/// The bytes that a structure takes on the wire.
func wireSize<Wire: WireStructure & BitwiseCopyable>(_ type: Wire.Type) -> Int {
    MemoryLayout<Wire>.size
}
