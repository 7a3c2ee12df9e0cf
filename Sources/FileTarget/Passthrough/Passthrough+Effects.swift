internal import Platform
internal import Uring

extension Passthrough {
    /// A request that counts lookups, opens a file or forgets nodes notes that from here on. If it was carried out
    /// before, and not answered, what it did is taken back, but for what it has forgotten.
    mutating func beginEffect(_ call: borrowing FuseCall, _ request: borrowing FuseRequest) {
        effect = .none
        guard let kind = call.effect, request.unique != 0 else { return }
        let place = place(of: request)
        guard place != 0 else { return }
        effect = EffectUse(place: place)
        let effects = session.nodes.effects
        guard effects.isOf(place, request.unique) else { return effects.begin(place, request.unique, kind) }
        if effects.kind(place) == .lookups { takeBack(place) }
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
    private mutating func takeBack(_ place: UInt32) {
        let effects = session.nodes.effects
        let handle = effects.handle(place)
        if handle != 0 {
            // It may never have been open.
            _ = session.release(handle)
            effects.setHandle(place, 0)
        }
        let word = effects.word(place)
        if word >> 32 != 0 { return forgetOne(word, 1) }
        var left = min(Int(word), RequestEffects.listCount)
        while left > 0 {
            left -= 1
            forgetOne(effects.node(place, left), 1, says: UInt64(left))
        }
    }
}

extension FuseCall {
    /// What a death in the middle of it must not leave behind, or do twice.
    fileprivate var effect: RequestEffects.Kind? {
        switch self {
        case .lookUp, .symlink, .makeNode, .makeDirectory, .link, .create, .temporaryFile, .open, .openDirectory:
            .lookups
        case .readDirectory(_, let plus): plus ? .lookups : nil
        case .forget, .batchForget: .forgets
        // All of them, so that the next call that there will be has to say which it is.
        case .getAttributes, .statx, .setAttributes, .readLink, .unlink, .removeDirectory, .rename, .read, .write,
            .statistics, .release, .flush, .synchronize, .releaseDirectory, .synchronizeDirectory, .synchronizeAll,
            .setAttribute, .getAttribute, .listAttributes, .removeAttribute, .getLock, .setLock, .access, .allocate,
            .seek, .copyRange, .interrupt:
            nil
        }
    }
}
