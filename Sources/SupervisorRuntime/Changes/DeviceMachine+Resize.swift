internal import Custody

// A disk takes another size. A larger one: the file grows, then the worker that has the device is told; it lets
// requests in up to the new end, changes the configuration, tells the front-end, and then answers. A smaller one: the
// worker is told first, then the file is cut, then whoever has the device by then is told once more: a successor may
// have looked at the file before it was cut. An answer names its order: what was said before the cut counts for that
// alone, however often it is heard.
//
// Whoever gets the device while this goes on is told, too. So, with a SIGKILL after:
//
// - (supervisor) the file grew, the state not written: a larger file, a disk of the old size until its next worker;
//   the command's connection is gone, it is to be given again;
// - (supervisor) the state written, the worker not told, or told and the answer not noted: its successor tells it
//   again; to do it twice is harmless;
// - (worker) told, no loop or some loops changed, or all and the configuration: its successor looks at the file when
//   it starts, and is told again;
// - (worker) front-end told, not answered: the successor tells it again. An acknowledgement of the first is taken, by
//   whoever has the device then (`BackendChannel.mayBeOwed`);
// - (supervisor) the file was cut, the state not written: cuts it again;
// - (supervisor) the state written, the answer that led to the cut not taken out of the channel: hears it again, and
//   waits for that to the next order all the same.

extension DeviceMachine {
    /// A change of the disk's size that is under way.
    public struct Resize: Codable, Hashable, Sendable {
        /// What the disk is to have.
        public let bytes: UInt64
        /// It may be less than it has now.
        public let isShrinking: Bool
        /// The file has the size of the disk.
        var isCut: Bool
        /// The generation that was told.
        var told: UInt64?

        public init(bytes: UInt64, isShrinking: Bool) {
            self.bytes = bytes
            self.isShrinking = isShrinking
            isCut = !isShrinking
        }

        var order: ResizeOrder { ResizeOrder(bytes: bytes, isShrinking: isShrinking, isLast: isCut) }
    }

    /// What became of it.
    public enum ResizeOutcome: Hashable, Sendable {
        /// The disk has so many bytes, and its front-end was told.
        case done(UInt64)
        /// It has to wait for a worker.
        case waiting(UInt64)
        case failed(String)
    }

    /// How long whoever asked waits for an answer, in milliseconds.
    static let resizePatience: UInt64 = 30_000

    mutating func begin(_ resize: Resize, _ actions: inout [Action]) {
        guard !isDeleting else { return actions.append(.resizeEnded(.failed("the device is being deleted"))) }
        guard self.resize == nil else {
            return actions.append(.resizeEnded(.failed("the disk is being resized already")))
        }
        self.resize = resize
        report(.resizing, nil, "to \(resize.bytes) bytes", &actions)
        if active == nil {
            actions.append(.resizeEnded(.waiting(resize.bytes)))
        } else {
            actions.append(.setTimer(.resize, milliseconds: Self.resizePatience))
        }
    }

    /// After every event: whoever has the device knows of its size.
    mutating func advanceResize(_ actions: inout [Action]) {
        guard let now = resize, let worker = workers.first(where: { $0.phase == .active }), worker.generation != 0,
            now.told != worker.generation
        else { return }
        resize?.told = worker.generation
        actions.append(.send(CustodyMessage(now.order), to: worker.id))
    }

    /// A worker has answered.
    mutating func resized(_ id: WorkerID, _ message: CustodyMessage, _ actions: inout [Action]) {
        // It may have come twice, or be of a worker that has lost the device since.
        guard let now = resize, message.resizeOrder == now.order, active?.id == id else { return }
        guard message.text.isEmpty else { return finishResize(.failed(message.text), &actions) }
        guard now.isCut else {
            actions.append(.cut(now.bytes))
            resize?.isCut = true
            resize?.told = nil
            return
        }
        report(.resized, id, "\(now.bytes) bytes", &actions)
        finishResize(.done(now.bytes), &actions)
    }

    mutating func finishResize(_ outcome: ResizeOutcome, _ actions: inout [Action]) {
        guard resize != nil else { return }
        resize = nil
        actions.append(.setTimer(.resize, milliseconds: nil))
        actions.append(.resizeEnded(outcome))
    }

    /// Whoever asked waits no longer; the disk takes the size all the same.
    func resizeExpired(_ actions: inout [Action]) {
        if let resize { actions.append(.resizeEnded(.waiting(resize.bytes))) }
    }
}
