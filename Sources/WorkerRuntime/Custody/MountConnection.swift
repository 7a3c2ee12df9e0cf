internal import CLinux
internal import Custody
internal import FileTarget
internal import Glibc
internal import Platform

/// What a mount has in place of a front-end's connection: whoever mounts it connects, sends /dev/fuse, and is answered
/// when it is in custody and served. From then on the connection says nothing any more; the mount ends when it is
/// unmounted.
///
/// | # | Last thing done | The successor |
/// |---|---|---|
/// | 1 | nothing was sent, or it is in the socket | receives it |
/// | 2 | received | finds a connection that says nothing; the sender waits in vain, gives up, and closes it |
/// | 3 | /dev/fuse in custody | serves it and answers |
/// | 4 | answered | answers again: nobody reads it |
struct MountConnection: ~Copyable {
    private let stream: UnixStream
    private let device: MountDevice
    private let takeOver: TakeOver
    private var isServing = false

    /// Why a mount has ended, as a sentence.
    struct End: Error {
        var reason: String
    }

    /// What is sent with /dev/fuse, and what it is answered with.
    static var message: UInt8 { UInt8(ascii: "m") }

    /// Takes the mount up where the worker before has left it.
    ///
    /// - Throws: why it cannot be served.
    init(stream: consuming UnixStream, device: MountDevice, takeOver: TakeOver) throws {
        self.stream = stream
        self.device = device
        self.takeOver = takeOver
        guard let fuse = try takeOver.link.descriptors.duplicate(CustodyKey(.fuseDevice)) else { return }
        try serve(fuse)
    }

    /// To be watched for input.
    var number: Int32 { isServing ? device.goneNumber : stream.fd.number }

    private mutating func serve(_ fuse: consuming OwnedFD) throws {
        let bytes = MountDevice.requestBytes
        let requests = try device.loops.indices.map { loop in
            let file = try takeOver.kept(
                CustodyKey(.fuseRequests, UInt16(loop)), bytes: bytes, name: "baton-fuse-requests")
            return SharedMapping(try Mapping(sharing: file, count: bytes))
        }
        try device.serve(fuse, requests)
        isServing = true
        var answer = Self.message
        // Whoever asked may be gone: then it is unmounted, which is heard in another way.
        unsafe withUnsafeBytes(of: &answer) { bytes in _ = try? unsafe stream.send(bytes) }
    }

    /// Something has arrived.
    ///
    /// - Throws: that the mount has ended, and why.
    mutating func receive() throws(End) {
        if isServing {
            // Other things wake this thread, too.
            guard waitForInput(number, milliseconds: 0) else { return }
            throw End(reason: "it was unmounted")
        }
        var word: UInt8 = 0
        var fds = ReceivedFDs()
        do throws(Errno) {
            var received = try unsafe withUnsafeMutableBytes(of: &word) { bytes throws(Errno) in
                try unsafe stream.receive(into: bytes, waiting: false)
            }
            fds = received.takeFDs()
            if received.byteCount == 0 { word = 0 }
        } catch {
            if error == .wouldBlock { return }
            throw End(reason: "\(error)")
        }
        guard word != 0 else { throw End(reason: "whoever was about to mount it has gone") }
        guard word == Self.message, let fuse = fds.takeFirst(), clinux_is_fuse_device(fuse.number) != 0 else {
            throw End(reason: "something else than /dev/fuse was sent")
        }
        do {
            try takeOver.link.keep(fuse, under: CustodyKey(.fuseDevice))
            try serve(fuse)
        } catch {
            throw End(reason: "\(error)")
        }
    }

    /// It has ended: the device goes back to before it was mounted.
    consuming func end() {
        device.leave()
        device.reset(keepingMemory: false)
    }
}
