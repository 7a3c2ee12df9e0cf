public import Custody
internal import Inflight

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
                guard progress.done <= (unsafe ranges[range].length) else { return false }
                unsafe ranges[range].offset += progress.done
                unsafe ranges[range].length -= progress.done
            }
            rangeIndex = range
            rangesDone = progress.done
        } else if operation == .flush {
            guard bounce < 0, progress.done == 0 else { return false }
        } else {
            guard progress.done < remaining, part <= remaining - progress.done || part == UInt64(UInt32.max) else {
                return false
            }
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

    public mutating func abandon(_ slot: inout RequestSlot) { releaseBounce(&slot) }
}

extension BlockQueue where Ring: ~Copyable {
    /// Takes up what a worker before has taken and not returned, as far as the kernel has it: its completion comes.
    ///
    /// All queues that share a backend come before anything is started (`start`): what is started now takes bounce
    /// buffers and submission queue indices, which must not be those of what the kernel has.
    ///
    /// - Parameter heads: of the log, in the order in which they were taken.
    /// - Returns: the others, in the same order.
    public mutating func adopt<Backend: StorageBackend & ~Copyable>(
        _ heads: [UInt16], _ backend: inout Backend
    ) -> [UInt16] {
        continueSequences()
        return heads.filter { !adopt($0, &backend) }
    }

    /// Carries out what a worker before has taken and the kernel has not.
    public mutating func start<Backend: StorageBackend & ~Copyable>(_ heads: [UInt16], _ backend: inout Backend) {
        for head in heads { admit(head, &backend) }
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
        _ head: UInt16, _ backend: inout Backend
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
        let parsed = parse(head)
        unsafe slot.pointee.prepare(queue: UInt16(index), head: head, durable: writesThrough)
        unsafe slot.pointee.isAdopted = true
        unsafe slot.pointee.isActive = true
        outstandingCount += 1
        if case .accepted = parsed {
            unsafe slot.pointee.isRefused = !backend.adopt(&slot.pointee, entry.progress)
        } else {
            // The guest has changed its request since. Its buffers stay reserved until the kernel is done with them.
            unsafe slot.pointee.isRefused = true
        }
        return true
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
        if unsafe slot.pointee.isRefused {
            unsafe slot.pointee.isRefused = false
            counted.others += 1
            counted.malformed += 1
            complete(head, .ioError)
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
