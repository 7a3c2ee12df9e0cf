internal import Platform
internal import Uring

extension Passthrough {
    /// A request that leaves something in the tables, or can be done but once, notes that from here on. If it was
    /// carried out before, and not answered, what it did to the tables is taken back, but for what it has forgotten.
    mutating func beginEffect(_ call: borrowing FuseCall, _ request: borrowing FuseRequest) {
        effect = .none
        guard let kind = call.effect, request.unique != 0 else { return }
        let place = place(of: request)
        guard place != 0 else { return }
        effect = EffectUse(place: place)
        let effects = session.nodes.effects
        guard effects.isOf(place, request.unique) else { return effects.begin(place, request.unique, kind) }
        if effects.kind(place) == .lookups { takeBack(place, keepsFile: call.opensNode) }
        // Whoever asked may have written another request over it since.
        if effects.kind(place) != kind { effects.begin(place, request.unique, kind) }
    }

    /// The effect of a request that is under way.
    func effectUse(of request: borrowing FuseRequest) -> EffectUse {
        let place = place(of: request)
        guard place != 0, session.nodes.effects.isOf(place, request.unique) else { return .none }
        return EffectUse(place: place)
    }

    private func place(of request: borrowing FuseRequest) -> UInt32 {
        let token = RequestToken(rawValue: request.token)
        return session.nodes.effects.place(queue: token.queue, head: token.head)
    }

    /// Each step leaves an effect that says what is left of it.
    private mutating func takeBack(_ place: UInt32, keepsFile: Bool) {
        if !keepsFile { forgetFileOpenedBefore() }
        let effects = session.nodes.effects
        let word = effects.word(place)
        if word >> 32 != 0 { return forgetOne(word, 1) }
        var left = min(Int(word), RequestEffects.listCount)
        while left > 0 {
            left -= 1
            forgetOne(effects.node(place, left), 1, says: UInt64(left))
        }
    }

    /// The file that the request has opened for a worker before, which nobody was told of; nil: none, or another's.
    func fileOpenedBefore(_ kind: FileKind, _ request: borrowing FuseRequest) -> UInt64? {
        guard effect.place != 0 else { return nil }
        let handle = session.nodes.effects.handle(effect.place)
        guard handle != 0, session.files.take(handle, kind) != nil else { return nil }
        let slot = UInt32(truncatingIfNeeded: handle)
        defer { session.giveBack(slot) }
        return session.files.node(of: slot) == request.node ? handle : nil
    }

    /// A file that the request has opened before is nobody's.
    func forgetFileOpenedBefore() {
        guard effect.place != 0 else { return }
        let effects = session.nodes.effects
        let handle = effects.handle(effect.place)
        guard handle != 0 else { return }
        // It may never have been open.
        _ = session.release(handle)
        effects.setHandle(effect.place, 0)
    }

    // MARK: What is done in one step

    /// How far a request has come whose worker has died.
    enum Progress: Equatable {
        /// As far as is known, it has done nothing.
        case none
        /// It has found what it needs: it may be done.
        case begun
        case done(UInt64)
    }

    private static var doneBit: UInt64 { 1 << 63 }

    /// Of the request that is carried out.
    var progressBefore: Progress {
        guard effect.place != 0 else { return .none }
        let word = session.nodes.effects.word(effect.place)
        if word & Self.doneBit != 0 { return .done(word & ~Self.doneBit) }
        return word == 0 ? .none : .begun
    }

    /// What it needs is there: if it is not when it is carried out again, it was done.
    func noteBegun() {
        if effect.place != 0 { session.nodes.effects.setWord(effect.place, 1) }
    }

    func noteDone(_ count: UInt64 = 0) {
        if effect.place != 0 { session.nodes.effects.setWord(effect.place, Self.doneBit | count) }
    }
}

extension FuseCall {
    /// It opens a node that there is.
    fileprivate var opensNode: Bool {
        switch self {
        case .open, .openDirectory: true
        default: false
        }
    }

    /// What a death in the middle of it must not leave behind, or do twice.
    fileprivate var effect: RequestEffects.Kind? {
        switch self {
        case .lookUp, .symlink, .makeNode, .makeDirectory, .link, .create, .temporaryFile, .open, .openDirectory:
            .lookups
        case .readDirectory(_, let plus): plus ? .lookups : nil
        case .forget, .batchForget: .forgets
        case .write, .setAttributes, .setAttribute, .removeAttribute, .release, .releaseDirectory, .copyRange: .changes
        // All of them, so that the next call that there will be has to say which it is.
        case .getAttributes, .statx, .readLink, .unlink, .removeDirectory, .rename, .read, .statistics, .flush,
            .synchronize, .synchronizeDirectory, .synchronizeAll, .getAttribute, .listAttributes, .getLock, .setLock,
            .access, .allocate, .seek, .interrupt:
            nil
        }
    }
}
