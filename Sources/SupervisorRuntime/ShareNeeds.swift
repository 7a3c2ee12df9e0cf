internal import CLinux
internal import Platform

extension WorkerSandbox {
    /// Why this process cannot serve shares, and what to do, as sentences; nil when it can. Nobody gives its workers
    /// more than it has itself. Outside of a sandbox they make do with what there is.
    var whyNoShares: String? {
        guard demand != .off, let reason = lackOfShares else { return nil }
        return adviceForShares.isEmpty ? reason : "\(reason). \(adviceForShares)"
    }

    private var lackOfShares: String? {
        var lacking: [String] = []
        var isThere: Int32 = 0
        var index: UInt32 = 0
        while let name = unsafe clinux_capability_for_share(index, &isThere) {
            if isThere == 0 { lacking.append(unsafe String(cString: name)) }
            index += 1
        }
        if !lacking.isEmpty { return "A share needs \(lacking.joined(separator: ", ")), which the supervisor lacks" }
        guard let call = unsafe clinux_refused_call_of_share() else { return nil }
        return "A share needs \(unsafe String(cString: call)), which a filter of system calls keeps from the supervisor"
    }

    /// - Throws: what is missing, and what to do.
    func checkMayShare(_ directory: String) throws(SystemError) {
        guard let whyNoShares else { return }
        throw SystemError(cannot: "share", directory, nil, advice: whyNoShares)
    }
}
