public import Custody
public import Inflight
internal import Telemetry
internal import Uring
internal import Virtio

extension RequestSlot {
    /// How far the request had come before the operation under way, for its record.
    ///
    /// `state`, from bit 0: method (8 bits), range index (8), flags (8: 1 synchronizing, 2 durable), bounce buffer + 1
    /// (8), bytes of the part under way (32; more than that no operation transfers).
    @inlinable
    @inline(__always)
    var progress: RequestProgress {
        let done = operation == .read || operation == .write ? totalBytes &- remaining : rangesDone
        var state = UInt64(method) | UInt64(truncatingIfNeeded: rangeIndex) << 8
        if isSynchronizing { state |= 1 << 16 }
        if isDurable { state |= 2 << 16 }
        state |= UInt64(UInt8(truncatingIfNeeded: bounce + 1)) << 24
        state |= UInt64(UInt32(clamping: partLength)) << 32
        return RequestProgress(done: done, state: state)
    }

    /// Takes progress over that a record has. The request was parsed afresh: what does not fit it is refused.
    ///
    /// - Returns: false when it does not fit; the slot is as before then.
    mutating func restore(_ progress: RequestProgress, bounceCount: Int) -> Bool {
        let state = progress.state
        let range = Int(UInt8(truncatingIfNeeded: state >> 8))
        let bounce = Int32(UInt8(truncatingIfNeeded: state >> 24)) - 1
        let part = state >> 32
        guard bounce < Int32(bounceCount) else { return false }
        if operation.worksOnRanges {
            let isSynchronizing = state & 1 << 16 != 0
            guard bounce < 0, range < rangeCount || isSynchronizing && range == rangeCount else { return false }
            if range < rangeCount {
                let length = unsafe ranges[range].length
                guard progress.done <= length else { return false }
                // Of the other ways a range is worked on whole, and `part` is of an earlier one.
                let isWritten = UInt8(truncatingIfNeeded: state) == RangeMethod.write
                guard !isWritten || part <= length - progress.done else { return false }
                unsafe ranges[range].offset += progress.done
                unsafe ranges[range].length -= progress.done
            }
            rangeIndex = range
            rangesDone = progress.done
        } else if operation == .flush {
            guard bounce < 0, progress.done == 0 else { return false }
        } else {
            guard progress.done < remaining, part <= remaining - progress.done else { return false }
            advance(progress.done)
        }
        self.bounce = bounce
        method = UInt8(truncatingIfNeeded: state)
        isSynchronizing = state & 1 << 16 != 0
        isDurable = state & 2 << 16 != 0
        partLength = part
        return true
    }
}

extension FileBackend where Engine: ~Copyable {
    public mutating func adopt(_ slot: inout RequestSlot, _ progress: RequestProgress) -> Bool {
        guard slot.restore(progress, bounceCount: BouncePool.bufferCount) else { return false }
        if slot.bounce >= 0, !bounces.reserve(slot.bounce) {
            slot.bounce = -1
            return false
        }
        return true
    }

    public mutating func hold(_ slot: inout RequestSlot, _ progress: RequestProgress) {
        let bounce = Int32(UInt8(truncatingIfNeeded: progress.state >> 24)) - 1
        slot.bounce = bounce >= 0 && bounces.reserve(bounce) ? bounce : -1
    }

    public mutating func abandon(_ slot: inout RequestSlot) { releaseBounce(&slot) }
}

extension BlockQueue where Ring: ~Copyable {
    /// Takes up what a worker before has taken and not returned, as far as the kernel has it: its completion comes.
    ///
    /// All queues that share a backend come before anything is started (`start`): what is started now takes bounce
    /// buffers and submission queue indices, which must not be those of what the kernel has.
    ///
    /// - Parameters:
    ///   - plan: what the log has; it is told what becomes of it.
    ///   - suspect: what the worker before was handling when it died by its own fault; nil: nothing.
    /// - Returns: those to be started, in the order in which they were taken.
    public mutating func adopt<Backend: StorageBackend & ~Copyable>(
        _ plan: inout RecoveryPlan, suspect: Suspect? = nil, _ backend: inout Backend
    ) -> [UInt16] {
        continueSequences()
        meter.keepWords(of: plan.heads)
        judge(&plan, suspect)
        var waiting: [UInt16] = []
        for head in plan.heads where !plan.setAside.contains(head) {
            if !adopt(head, isGivenUp: plan.givenUp.contains(head), &backend) { waiting.append(head) }
        }
        account.handleNothing()
        plan.adopted = adopted
        return waiting
    }

    /// Carries out what a worker before has taken and the kernel has not.
    public mutating func start<Backend: StorageBackend & ~Copyable>(_ heads: [UInt16], _ backend: inout Backend) {
        for head in heads {
            if unsafe storage.slots[Int(head)].isRefused { giveUp(head) } else { admit(head, &backend) }
        }
        account.handleNothing()
    }

    /// Decides what is given up.
    private mutating func judge(_ plan: inout RecoveryPlan, _ suspect: Suspect?) {
        guard records.isKept else { return }
        let known = Set(plan.heads)
        for slot in 0..<ring.size where !known.contains(slot) { records.forgive(slot) }
        for head in plan.heads {
            let request = HandledRequest(queue: index, slot: head)
            switch records.judge(request, counter: ring.counter(of: head), suspect) {
            case .goesOn: break
            case .isSetAside: plan.setAside.append(head)
            case .isGivenUp(let isNew):
                plan.givenUp.append(head)
                if isNew { plan.newlyGivenUp += 1 }
                unsafe storage.slots[Int(head)].isRefused = true
            }
        }
    }

    /// Completions of requests that were returned long ago may lie in the completion queue yet, for heads that are in
    /// use again soon: no sequence number may come twice.
    private mutating func continueSequences() {
        guard records.isKept else { return }
        for head in 0..<ring.size {
            let token = RequestToken(sequence: records.entry(of: head).sequence, queue: UInt16(index), head: head)
            unsafe storage.slots[Int(head)].token = token.rawValue
        }
    }

    /// Goes on with a request if the kernel has its operation.
    private mutating func adopt<Backend: StorageBackend & ~Copyable>(
        _ head: UInt16, isGivenUp: Bool, _ backend: inout Backend
    ) -> Bool {
        guard records.isKept else { return false }
        let entry = records.entry(of: head)
        let slot = unsafe storage.slots + Int(head)
        guard entry.isIssued, entry.isKnownStarted || backend.hadTaken(entry.index) else {
            // Its index will be another operation's soon: the next worker must not take that one for this.
            records.begin(head)
            return false
        }
        records.markStarted(head)
        account.handle(head)
        var isAccepted = false
        if isGivenUp { findStatus(head) } else if case .accepted = parse(head) { isAccepted = true }
        unsafe slot.pointee.prepare(queue: UInt16(index), head: head, durable: writesThrough)
        unsafe slot.pointee.isAdopted = true
        unsafe slot.pointee.isActive = true
        outstandingCount += 1
        adopted += 1
        if isAccepted { isAccepted = backend.adopt(&(unsafe slot.pointee), entry.progress) }
        // The guest has changed its request since, or it is given up. Its buffers stay reserved until the kernel is
        // done with them.
        if !isAccepted { backend.hold(&(unsafe slot.pointee), entry.progress) }
        unsafe slot.pointee.isRefused = !isAccepted
        return true
    }

    private mutating func findStatus(_ head: UInt16) {
        let slot = unsafe storage.slots + Int(head)
        var segments = unsafe slot.pointee.emptySegments
        let verdict = ring.walk(from: head, memory: &view, into: &segments)
        unsafe slot.pointee.segmentStorage = segments.storage
        _ = unsafe slot.pointee.findStatus(segments, verdict)
    }

    /// Answers a request with an error that is not carried out.
    private mutating func giveUp(_ head: UInt16) {
        account.handle(head)
        let slot = unsafe storage.slots + Int(head)
        unsafe slot.pointee.isRefused = false
        unsafe slot.pointee.isActive = true
        outstandingCount += 1
        findStatus(head)
        answerRefused(head)
    }

    private mutating func answerRefused(_ head: UInt16) {
        if unsafe storage.slots[Int(head)].status != nil {
            meter.refuse(head, isMalformed: false)
            answer(head, .ioError)
        } else {
            giveBackUnanswered(head, isMalformed: false)
        }
    }

    /// The operation of an adopted request has completed.
    ///
    /// An error says nothing: it may be due to the death of the worker that had started it, and so may a transfer of
    /// nothing. Such a request is carried out anew, in full.
    @usableFromInline
    mutating func finishAdopted<Backend: StorageBackend & ~Copyable>(
        _ head: UInt16, _ result: Int32, _ backend: inout Backend
    ) {
        let slot = unsafe storage.slots + Int(head)
        unsafe slot.pointee.isAdopted = false
        adopted -= 1
        if unsafe slot.pointee.isRefused {
            unsafe slot.pointee.isRefused = false
            backend.abandon(&(unsafe slot.pointee))
            answerRefused(head)
        } else if result < 0 || (unsafe result == 0 && slot.pointee.expectsBytes) {
            backend.abandon(&(unsafe slot.pointee))
            records.begin(head)
            outstandingCount -= 1
            admit(head, &backend)
        } else {
            let step = unsafe backend.finish(&slot.pointee, result: result)
            // What the record says, that the kernel has it, is not true of the next operation.
            if case .pending = step { records.begin(head) }
            carryOut(step, head, backend)
        }
    }
}
