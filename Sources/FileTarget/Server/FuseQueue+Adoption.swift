public import Custody
public import Inflight
internal import Platform
internal import Telemetry
public import Uring

extension FuseQueue where Ring: ~Copyable {
    /// Takes up what a worker before has taken and not returned, as far as the kernel has it: its completion comes.
    ///
    /// All queues that share a server come before anything is started (`start`): what is started now takes submission
    /// queue indices, which must not be those of what the kernel has.
    ///
    /// - Parameters:
    ///   - plan: what the log has; it is told what becomes of it.
    ///   - suspect: what the worker before was handling when it died by its own fault; nil: nothing.
    /// - Returns: those to be started, in the order in which they were taken.
    public mutating func adopt<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ plan: inout RecoveryPlan, suspect: Suspect? = nil,
        _ server: inout FuseServer<Files, Engine>
    ) -> [UInt16] {
        continueSequences()
        meter.keepWords(of: plan.heads)
        judge(&plan, suspect)
        var waiting: [UInt16] = []
        for head in plan.heads where !plan.setAside.contains(head) {
            if !adopt(head, isGivenUp: plan.givenUp.contains(head), &server) { waiting.append(head) }
        }
        account.handleNothing()
        plan.adopted = adopted
        return waiting
    }

    /// Carries out what a worker before has taken and the kernel has not.
    public mutating func start<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ heads: [UInt16], _ server: inout FuseServer<Files, Engine>
    ) {
        for head in heads {
            if unsafe storage.slots[Int(head)].isRefused {
                outstanding += 1
                unsafe storage.slots[Int(head)].isActive = true
                answerRefused(head, &server)
            } else {
                admit(head, &server)
            }
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

    /// Waits for a request's operation if the kernel has it.
    private mutating func adopt<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ head: UInt16, isGivenUp: Bool, _ server: inout FuseServer<Files, Engine>
    ) -> Bool {
        guard records.isKept else { return false }
        let entry = records.entry(of: head)
        guard entry.isIssued, entry.isKnownStarted || server.hadTaken(entry.index) else {
            // Its index will be another operation's soon: the next worker must not take that one for this.
            records.begin(head)
            return false
        }
        records.markStarted(head)
        let slot = unsafe storage.slots + Int(head)
        unsafe slot.pointee.isAdopted = true
        unsafe slot.pointee.isActive = true
        unsafe slot.pointee.isRefused = isGivenUp
        outstanding += 1
        adopted += 1
        return true
    }

    /// The operation of an adopted request has completed. What it has done is done: only an error is tried again.
    mutating func finishAdopted<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ head: UInt16, _ result: Int32, _ server: inout FuseServer<Files, Engine>
    ) {
        let slot = unsafe storage.slots + Int(head)
        unsafe slot.pointee.isAdopted = false
        adopted -= 1
        if unsafe slot.pointee.isRefused {
            answerRefused(head, &server)
            return
        }
        guard let segments = walk(head) else {
            giveBack(head, written: 0, isMalformed: true)
            return
        }
        let progress = records.entry(of: head).progress
        let step = unsafe server.finishAdopted(&slot.pointee, segments, progress, result: result)
        // What the record says, that the kernel has it, is not true of the next operation.
        switch step {
        case .pending, .submitting: records.begin(head)
        default: break
        }
        carryOut(step, head, &server)
    }

    /// Answers a request with an error that is not carried out.
    private mutating func answerRefused<Files: FileSystem & ~Copyable, Engine: IOEngine & ~Copyable>(
        _ head: UInt16, _ server: inout FuseServer<Files, Engine>
    ) {
        let slot = unsafe storage.slots + Int(head)
        unsafe slot.pointee.isRefused = false
        account.handle(head)
        guard let segments = walk(head) else {
            giveBack(head, written: 0, isMalformed: true)
            return
        }
        let step = unsafe server.refuse(&slot.pointee, segments, .inputOutput)
        carryOut(step, head, &server)
    }
}
