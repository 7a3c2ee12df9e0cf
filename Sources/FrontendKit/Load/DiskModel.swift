/// What each sector of a disk may hold, given the writes that completed and those in flight.
///
/// A disk promises what an atomic register promises, sector by sector: a read returns the last completed write, or any
/// write that was in flight at some time during the read; of writes that overlapped in time any may be the last. So a
/// sector has a few *candidates*. When a write completes, every candidate that had completed before that write began is
/// superseded: reads that begin later must not return it. A read on a quiet sector settles which candidate it is: then
/// nothing but a new write may change it.
///
/// A discard, and a write that failed, supersede nothing: the old content may stay.
///
/// One thing is less than a register: a read that overlaps a write in time may find a sector half written. Through the
/// host's page cache nothing keeps the two apart (ext4 reads without the lock that a write holds). Once the write has
/// completed the sector must be whole.
struct DiskModel {
    /// How many candidates a sector can have. `mayBegin` refuses a request that could need more.
    static let candidateLimit = 4

    let sectors: Range<UInt64>
    private var candidates: [Candidate]
    private var states: [SectorState]
    /// Counts the beginnings and ends of requests: the model's clock.
    private(set) var now: UInt64 = 1

    /// - Parameter content: what the sectors hold at first: zeros, or nobody knows.
    init(sectors: Range<UInt64>, initially content: InitialContent) {
        self.sectors = sectors
        let count = Int(sectors.upperBound - sectors.lowerBound)
        var first = Candidate()
        first.value = content == .zeros ? .zeros : .anything
        first.completed = 0
        candidates = []
        candidates.reserveCapacity(count * Self.candidateLimit)
        for _ in 0..<count {
            candidates.append(first)
            for _ in 1..<Self.candidateLimit { candidates.append(Candidate()) }
        }
        states = Array(repeating: SectorState(), count: count)
    }

    // MARK: What is in flight

    /// Whether a request on these sectors may begin now.
    ///
    /// - Parameter overlapping: whether requests on the same sector may overlap in time at all.
    func mayBegin(_ range: Range<UInt64>, writes: Bool, overlapping: Bool) -> Bool {
        for sector in range {
            let state = states[index(of: sector)]
            if !overlapping, state.writers > 0 || (writes && state.readers > 0) { return false }
            if writes, Int(state.count) == Self.candidateLimit { return false }
            if state.readers == .max || state.writers == .max { return false }
        }
        return true
    }

    /// A read begins.
    ///
    /// - Returns: when, for `check`.
    mutating func beginRead(_ range: Range<UInt64>) -> UInt64 {
        for sector in range { states[index(of: sector)].readers += 1 }
        return tick()
    }

    /// A read has been checked.
    mutating func endRead(_ range: Range<UInt64>) {
        for sector in range {
            let place = index(of: sector)
            states[place].readers -= 1
            purge(place)
        }
    }

    /// A write begins: from now on a read may see it.
    mutating func beginWrite(_ range: Range<UInt64>, _ value: SectorValue, id: UInt64) {
        let started = tick()
        for sector in range {
            let place = index(of: sector)
            states[place].writers += 1
            append(Candidate(value: value, id: id, started: started), at: place)
        }
    }

    /// A write has ended.
    ///
    /// - Parameter certain: it took place for sure; false for a discard and for a failure.
    mutating func endWrite(_ range: Range<UInt64>, id: UInt64, certain: Bool) {
        let ended = tick()
        for sector in range {
            let place = index(of: sector)
            states[place].writers -= 1
            end(id, at: place, ended: ended, certain: certain)
            purge(place)
        }
    }

    private mutating func end(_ id: UInt64, at place: Int, ended: UInt64, certain: Bool) {
        let slots = slots(of: place)
        guard let own = slots.first(where: { candidates[$0].id == id }) else {
            preconditionFailure("a write ends that never began")
        }
        candidates[own].completed = ended
        for other in slots where other != own {
            let candidate = candidates[other]
            if certain, candidate.completed < candidates[own].started {
                candidates[other].superseded = min(candidate.superseded, ended)
            } else if !certain, candidate.value == candidates[own].value, candidate.isSettled {
                // The same content twice says nothing more; the later one stays legal longer.
                candidates[other].superseded = 0
                candidates[own].seen = candidates[own].seen || candidate.seen
            }
        }
    }

    // MARK: Checking

    /// Judges what a read found in a sector; nil when it may.
    mutating func check(
        _ sector: UInt64, _ content: SectorContent, readStarted: UInt64, seed: UInt64
    ) -> MismatchKind? {
        let place = index(of: sector)
        let slots = slots(of: place)
        let found = slots.first { slot in
            candidates[slot].superseded >= readStarted
                && candidates[slot].value.allows(content, sector: sector, seed: seed)
        }
        guard let found else {
            if case .other = content, slots.contains(where: { candidates[$0].completed > readStarted }) { return nil }
            return classify(content, sector, seed: seed, slots)
        }
        candidates[found].seen = true
        let isQuiet = slots.allSatisfy { candidates[$0].completed < readStarted }
        if isQuiet, states[place].readers == 1 { settle(place, on: candidates[found]) }
        return nil
    }

    /// A sentence about what a sector may hold.
    func expectation(of sector: UInt64) -> String {
        let slots = slots(of: index(of: sector))
        let legal = slots.filter { candidates[$0].superseded == .max }
        return legal.map { "\(candidates[$0].value)" }.joined(separator: " or ")
    }

    private func classify(
        _ content: SectorContent, _ sector: UInt64, seed: UInt64, _ slots: Range<Int>
    ) -> MismatchKind {
        if case .other = content { return .corrupt }
        if case .stamp(let stamp) = content {
            if stamp.seed != seed { return .corrupt }
            if stamp.sector != sector { return .misdirected }
        }
        let newest = slots.filter { candidates[$0].completed != .max && candidates[$0].superseded == .max }
            .max { candidates[$0].completed < candidates[$1].completed }
        return newest.map { candidates[$0].seen } == true ? .stale : .lost
    }

    // MARK: Candidates

    private mutating func tick() -> UInt64 {
        now += 1
        return now
    }

    private func index(of sector: UInt64) -> Int {
        precondition(sectors.contains(sector), "the sector is not of this model")
        return Int(sector - sectors.lowerBound)
    }

    private func slots(of place: Int) -> Range<Int> {
        let first = place * Self.candidateLimit
        return first..<first + Int(states[place].count)
    }

    private mutating func append(_ candidate: Candidate, at place: Int) {
        precondition(states[place].count < Self.candidateLimit, "too many candidates")
        candidates[slots(of: place).upperBound] = candidate
        states[place].count += 1
    }

    private mutating func settle(_ place: Int, on candidate: Candidate) {
        candidates[place * Self.candidateLimit] = candidate
        states[place].count = 1
    }

    /// Forgets candidates that no read, present or future, may return.
    private mutating func purge(_ place: Int) {
        guard states[place].readers == 0 else { return }
        let slots = slots(of: place)
        var kept = slots.lowerBound
        for slot in slots where candidates[slot].superseded == .max {
            candidates[kept] = candidates[slot]
            kept += 1
        }
        states[place].count = UInt8(kept - slots.lowerBound)
    }
}

/// What the sectors of a disk hold before a load.
public enum InitialContent: Hashable, Sendable {
    case zeros
    /// Anything: a sector can be judged only after the load has written it.
    case unknown
}

/// What one write puts into a sector.
enum SectorValue: Hashable, CustomStringConvertible {
    case zeros
    case write(sequence: UInt64)
    case anything

    func allows(_ content: SectorContent, sector: UInt64, seed: UInt64) -> Bool {
        switch (self, content) {
        case (.anything, _), (.zeros, .zeros): true
        case (.write(let sequence), .stamp(let stamp)):
            stamp.sequence == sequence && stamp.sector == sector && stamp.seed == seed
        default: false
        }
    }

    var description: String {
        switch self {
        case .zeros: "zeros"
        case .write(let sequence): "write \(sequence)"
        case .anything: "anything"
        }
    }
}

/// One content that a sector may have. Times are of the model's clock.
private struct Candidate {
    var value = SectorValue.zeros
    /// Which request writes it.
    var id: UInt64 = 0
    var started: UInt64 = 0
    /// When that request ended; in flight: never.
    var completed = UInt64.max
    /// Reads that begin after this must not return it.
    var superseded = UInt64.max
    /// A read has returned it.
    var seen = false

    var isSettled: Bool { completed != .max }
}

private struct SectorState {
    /// Candidates there are.
    var count: UInt8 = 1
    /// Requests in flight.
    var readers: UInt8 = 0
    var writers: UInt8 = 0
}
