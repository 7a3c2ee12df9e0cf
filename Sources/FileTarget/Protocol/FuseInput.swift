internal import CWire
internal import Glibc
internal import Platform

/// The bytes of a request behind its header, in memory of the server, taken from the front.
@safe struct FuseInput {
    private var next: UnsafeRawPointer
    private(set) var count: Int

    /// - Parameter base: `count` bytes that stay as they are.
    init(_ base: UnsafeRawPointer, count: Int) {
        unsafe next = base
        self.count = count
    }

    private static var malformed: Errno { .invalidArgument }

    private mutating func drop(_ bytes: Int) {
        unsafe next += bytes
        count -= bytes
    }

    /// The next structure.
    mutating func take<Value: BitwiseCopyable>(_: Value.Type) throws(Errno) -> Value {
        guard count >= MemoryLayout<Value>.size else { throw Self.malformed }
        let value = unsafe next.loadUnaligned(as: Value.self)
        drop(MemoryLayout<Value>.size)
        return value
    }

    /// So much of a structure as there is, up to all of it; the rest is zero.
    mutating func takeShort<Value: BitwiseCopyable>(_ zero: Value, atLeast: Int) throws(Errno) -> Value {
        guard count >= atLeast else { throw Self.malformed }
        var value = zero
        let length = min(count, MemoryLayout<Value>.size)
        unsafe withUnsafeMutableBytes(of: &value) { bytes in
            unsafe bytes.baseAddress!.copyMemory(from: next, byteCount: length)
        }
        drop(length)
        return value
    }

    mutating func bytes(_ length: Int) throws(Errno) -> FuseBytes {
        guard length >= 0, length <= count else { throw Self.malformed }
        let bytes = unsafe FuseBytes(base: next, count: length)
        drop(length)
        return bytes
    }

    /// Text up to its NUL.
    mutating func text(atMost limit: Int) throws(Errno) -> FuseName {
        guard count > 0, let end = unsafe memchr(next, 0, count) else { throw Self.malformed }
        let length = unsafe UnsafeRawPointer(end) - next
        if length > limit { throw Errno(rawValue: ENAMETOOLONG) }
        let name = unsafe FuseName(bytes: next.assumingMemoryBound(to: CChar.self), count: length)
        drop(length + 1)
        return name
    }

    /// The name of a file in a directory.
    mutating func name() throws(Errno) -> FuseName {
        let name = try text(atMost: 255)
        guard name.count > 0, unsafe memchr(name.bytes, 0x2f, name.count) == nil else { throw Self.malformed }
        let dot: CChar = 0x2e
        if unsafe name.bytes[0] == dot, name.count == 1 || (unsafe name.count == 2 && name.bytes[1] == dot) {
            throw Self.malformed
        }
        return name
    }

    /// Nothing may follow.
    func end() throws(Errno) {
        // Structures grow at their end: a newer driver's may be longer. Names do not.
        if count != 0 { throw Self.malformed }
    }

    /// Security contexts and groups behind the names (7.36 and 7.38): records of a size and a type.
    mutating func extras() throws(Errno) -> FuseExtras {
        var extras = FuseExtras()
        while count > 0 {
            let whole = self
            let header = try take(wire_fuse_ext_header.self)
            guard header.size >= 8, Int(header.size) - 8 <= count else { throw Self.malformed }
            let length = Int(header.size) - 8
            var inner = unsafe FuseInput(next, count: length)
            if header.type <= UInt32(WIRE_FUSE_MAX_NR_SECCTX) {
                if header.type > 0 { try inner.label(&extras) }
            } else if header.type == UInt32(WIRE_FUSE_EXT_GROUPS) {
                let groups = try inner.take(wire_fuse_supp_groups.self)
                if groups.nr_groups > 1 { throw Self.malformed }
                if groups.nr_groups == 1 { extras.group = try inner.take(UInt32.self) }
            }
            // Padded to 8 bytes.
            let padded = min((Int(header.size) + 7) & ~7, whole.count)
            self = whole
            drop(padded)
        }
        return extras
    }

    /// The first security context; there is one in practice.
    private mutating func label(_ extras: inout FuseExtras) throws(Errno) {
        let context = try take(wire_fuse_secctx.self)
        let name = try text(atMost: 255)
        guard name.count > 0, context.size <= 65536 else { throw Self.malformed }
        extras.labelName = unsafe FuseBytes(base: UnsafeRawPointer(name.bytes), count: name.count + 1)
        extras.label = try bytes(Int(context.size))
    }
}
